"""What the agent does for each verb, through its socket, against a engine that only remembers."""

from __future__ import annotations

import json
import shutil
import socket
import stat
import threading
from dataclasses import replace

import pytest
from agent_lab import BLOG, WEB, A, B, C, Lab

from receiver.engines.base import Job, ProcessState, ProcessStatus
from receiver.errors import Failure
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Release
from receiver.names import AppName, ConfigKey, TypeName
from receiver.records import FORMAT, Format
from receiver.root.reconcile import reconcile_all
from receiver.system import disk


def test_config_vars_are_those_of_the_base_changed(lab: Lab) -> None:
    lab.release()
    assert lab.agent.snapshot_config(BLOG, 1, 0, {A: "1", B: "2"}, []) == ["A", "B"]
    assert lab.agent.snapshot_config(BLOG, 2, 1, {A: "1", C: "3"}, [B, ConfigKey("NONE")]) == ["B", "C"]
    assert lab.agent.read_config(BLOG, 2) == {"A": "1", "C": "3"}
    assert lab.agent.read_config(BLOG, 1) == {"A": "1", "B": "2"}
    assert lab.agent.read_config(BLOG, 0) == {}
    assert stat.S_IMODE(lab.paths.release(2).config.stat().st_mode) == 0o600


def test_the_config_vars_of_the_live_release_do_not_change(lab: Lab) -> None:
    lab.live()
    lab.agent.snapshot_config(BLOG, 2, 0, {A: "1"}, [])
    with pytest.raises(Failure, match="do not change"):
        lab.agent.snapshot_config(BLOG, 1, 0, {A: "1"}, [])


@pytest.mark.parametrize("change", [{A: "x" * 2**17}, {ConfigKey(f"K{i}"): "x" * 99_000 for i in range(10)}])
def test_config_vars_that_no_program_could_be_started_with_are_refused(lab: Lab, change: dict[ConfigKey, str]) -> None:
    lab.release()
    with pytest.raises(Failure, match="larger than"):
        lab.agent.snapshot_config(BLOG, 1, 0, change, [])
    assert not lab.paths.release(1).config.exists()


def test_a_build_runs_as_the_builder_and_may_write_its_slug_and_cache_only(lab: Lab) -> None:
    release = lab.release()
    result = lab.agent.build(BLOG, 1, 0, 1)
    (job,) = lab.engine.jobs
    of = lab.paths.release(release.number)
    assert (job.user, job.cwd, job.build, job.config) == ("build-blog", of.slug, True, None)
    assert job.writable == (of.slug, lab.paths.cache) and job.argv[-2:] == ("blog", "1") and job.timeout == 1800
    assert result.code == 0 and len(result.digest) == 64
    assert stat.S_IMODE(of.slug.stat().st_mode) == 0o2750 and not list(of.slug.iterdir()), "a leftover was built upon"


def test_what_is_given_back_is_read_by_who_may_and_nothing_is_written(lab: Lab) -> None:
    for number, (kind, user) in enumerate({"image": "app-blog", "machine": "build-blog"}.items(), 1):
        release = lab.live(**{kind: True})
        assert release.number == number
        lab.engine.jobs.clear()
        assert lab.agent.give(BLOG, release.number, 1, 2) == 0
        (job,) = lab.engine.jobs
        assert (job.user, job.writable, job.config, job.build) == (user, (), None, True)
        assert job.cwd == lab.paths.release(number).slug and job.argv[-1] == "give"
    with pytest.raises(Failure, match="neither an image nor a disk"):
        lab.agent.give(BLOG, lab.live().number, 1, 2)


def test_a_build_gets_the_config_vars_that_the_manifest_names_and_no_other(lab: Lab) -> None:
    lab.live()
    lab.agent.snapshot_config(BLOG, 2, 0, {A: "1", B: "2"}, [])
    release = lab.release(config_base=2, build_config=("A", "C"))
    seen = []

    def build(job: Job) -> int:
        assert job.config
        seen.append((json.loads(job.config.read_bytes()), stat.S_IMODE(job.config.stat().st_mode)))
        return 5

    lab.engine.job = build
    result = lab.agent.build(BLOG, release.number, 0, 1)
    assert (result.code, result.digest) == (5, "")
    assert seen == [({"A": "1"}, 0o600)]
    assert sorted(p.name for p in lab.paths.config.iterdir()) == ["v2.json"], "the build's copy stayed"


def test_a_release_that_shares_a_slug_is_not_built(lab: Lab) -> None:
    lab.release()
    shared = lab.release(slug=1, environment=1)
    with pytest.raises(Failure, match="nothing to build"):
        lab.agent.build(BLOG, shared.number, 0, 1)
    assert (lab.paths.release(1).slug / "file").exists()


def test_a_slug_that_the_live_release_runs_from_is_mounted_no_more_into(lab: Lab) -> None:
    lab.live()
    lab.live(slug=1, environment=1)
    with pytest.raises(Failure, match="is as it is"):
        lab.agent.mount(BLOG, 1, 1)
    assert not lab.engine.jobs


def test_a_release_command_runs_as_the_app_with_its_config_and_writes_its_data_only(lab: Lab) -> None:
    lab.release()
    lab.engine.job = lambda job: 3
    assert lab.agent.release_command(BLOG, 1, 1) == 3
    (job,) = lab.engine.jobs
    assert (job.user, job.build, job.config) == ("app-blog", False, lab.paths.release(1).config)
    assert set(job.writable) == {lab.paths.data, lab.paths.sockets} and "migrate" not in " ".join(job.argv)


def test_only_a_process_of_the_formation_with_a_command_check_is_checked_so(lab: Lab) -> None:
    lab.release()
    assert lab.agent.check_command(BLOG, 1, WEB, 2, 1) == 0
    for index, kind in ((3, WEB), (1, TypeName("worker"))):
        with pytest.raises(Failure):
            lab.agent.check_command(BLOG, 1, kind, index, 1)
    assert len(lab.engine.jobs) == 1


def test_a_job_is_stopped_when_whoever_asked_for_it_hangs_up(lab: Lab) -> None:
    lab.release()
    begun = threading.Event()

    def wait(job: Job) -> int:
        begun.set()
        return 0 if lab.engine.stopped.wait(10) else 1

    lab.engine.job = wait

    def ask() -> None:
        with pytest.raises(Failure):
            lab.agent.release_command(BLOG, 1, 1)

    asker = threading.Thread(target=ask)
    asker.start()
    assert begun.wait(10)
    lab.raw.shutdown(socket.SHUT_RDWR)
    asker.join(10)
    assert lab.engine.stopped.wait(10)
    assert ("stop_job", "release-blog-v1") in lab.engine.calls


def test_cancel_stops_every_job_of_the_release(lab: Lab) -> None:
    lab.release()
    lab.agent.cancel(BLOG, 1)
    assert [name for _, name in lab.engine.calls] == [
        "build-blog-v1", "release-blog-v1", "check-blog-v1-web-1", "check-blog-v1-web-2",
    ]  # fmt: skip


def damage(lab: Lab, number: int) -> None:
    (lab.paths.release(number).slug / "more").write_text("")


def known(lab: Lab) -> Release:
    """A live release with its digest; of its files this agent knows nothing yet, as after a boot."""
    made = lab.live()
    digest = disk.digest_tree(lab.paths.release(made.number).slug, 9)
    return lab.ledger.save(replace(made, digest=digest))


def test_files_that_have_not_run_since_the_boot_are_compared_before_they_start(lab: Lab) -> None:
    known(lab), known(lab), known(lab)
    damage(lab, 1)
    for release in (
        lab.ledger.open_release(Change.ROLLBACK, "alice", slug=1, environment=2),
        lab.ledger.open_release(Change.ROLLBACK, "alice", slug=2, environment=1),
        # Of another runtime's environment beside the first: Django's, and npm's.
        lab.ledger.open_release(Change.ROLLBACK, "alice", slug=2, environment=2, shares=(1,)),
    ):
        with pytest.raises(Failure, match=r"The files of v1, .* are not those that were built"):
            lab.agent.start(BLOG, release.number)
    assert "start" not in [call[0] for call in lab.engine.calls]


def test_files_that_serve_or_have_run_since_the_boot_are_not_read_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(lab), known(lab), known(lab)
    compared: list[str] = []
    digest = disk.digest_tree
    monkeypatch.setattr(disk, "digest_tree", lambda path, limit: [compared.append(path.name), digest(path, limit)][1])
    change = lab.ledger.open_release(Change.CONFIG, "alice", slug=3, environment=3)
    lab.agent.start(BLOG, change.number)
    assert compared == [], "it serves"
    back = lab.ledger.open_release(Change.ROLLBACK, "alice", slug=1, environment=1)
    lab.agent.start(BLOG, back.number)
    lab.agent.start(BLOG, back.number)
    assert compared == ["v1"], "once, and then it has run"
    lab.ledger.commit(lab.ledger.save(replace(lab.ledger.release(3), environment=2)))
    lab.agent.start(BLOG, lab.ledger.open_release(Change.CONFIG, "alice", slug=3, environment=2).number)
    assert compared == ["v1"], "it serves, with another's environment"
    lab.agent.start(BLOG, lab.ledger.open_release(Change.ROLLBACK, "alice", slug=2, environment=2).number)
    assert compared == ["v1", "v2"], "of v2 only the environment serves"
    shutil.rmtree(lab.layout.ran)
    lab.ledger.change_state(lambda state: replace(state, stopped=True))
    lab.agent.start(BLOG, change.number)
    assert compared == ["v1", "v2", "v3"], "what is stopped does not serve"


def test_the_doctor_learns_which_files_are_damaged_whatever_has_run(lab: Lab) -> None:
    known(lab), known(lab)
    lab.agent.start(BLOG, 2)
    assert lab.agent.check_files(BLOG, {1, 2}) == []
    damage(lab, 2)
    assert lab.agent.check_files(BLOG, {1, 2}) == [2]


def test_what_a_change_will_start_is_made_ready_behind_the_answer(lab: Lab) -> None:
    lab.live()
    change = lab.ledger.open_release(Change.CONFIG, "alice", slug=1, environment=1)
    lab.agent.snapshot_config(BLOG, change.number, 0, {A: "1"}, [])
    lab.agent.start(BLOG, change.number)
    assert [call[0] for call in lab.engine.calls[-2:]] == ["expect_start", "start"]


def test_nothing_is_made_ready_to_start_of_a_stopped_app(lab: Lab) -> None:
    lab.live()
    change = lab.ledger.open_release(Change.CONFIG, "alice", slug=1, environment=1)
    lab.ledger.change_state(lambda state: replace(state, stopped=True))
    lab.agent.snapshot_config(BLOG, change.number, 0, {A: "1"}, [])
    # Its answer comes after what the one before it left to do.
    lab.agent.ping()
    assert "expect_start" not in [call[0] for call in lab.engine.calls]


def test_what_a_newer_shipit_wrote_is_stopped_and_pruned_but_not_started(lab: Lab) -> None:
    """After an upgrade was undone: root acts only on what it knows whole, and what is there can be put away."""
    release = lab.live()
    newer = replace(release, format=Format(FORMAT.major, FORMAT.minor + 1), unknown={"wind": "west"})
    Ledger(lab.paths).save(newer)
    for act in (
        lambda: lab.agent.start(BLOG, 1), lambda: lab.agent.build(BLOG, 1, 0, 1), lambda: lab.agent.reconcile(BLOG),
        lambda: lab.agent.boot_with(BLOG, 1), lambda: lab.agent.release_command(BLOG, 1, 1),
    ):  # fmt: skip
        with pytest.raises(Failure, match="written by a newer shipit"):
            act()
    lab.live()
    lab.agent.stop(BLOG, 1, wait=False)
    lab.agent.start(BLOG, 2)
    assert lab.engine.calls[-2:] == [("stop", 1, False), ("start", 2)] and not lab.engine.jobs
    assert Ledger(lab.paths).release(1).unknown == {"wind": "west"}


def test_pruning_removes_slug_and_config_of_the_named_releases_only(lab: Lab) -> None:
    for _ in range(3):
        lab.live()
    lab.agent.snapshot_config(BLOG, 1, 0, {A: "1"}, [])
    lab.ledger.change_state(lambda state: replace(state, keep=2))
    lab.agent.prune(BLOG, [1])
    assert not lab.paths.release(1).slug.exists() and not lab.paths.release(1).config.exists()
    assert lab.paths.release(2).slug.exists() and lab.paths.release(3).slug.exists()
    assert lab.paths.release(1).record.exists(), "the ledger is not the agent's to shorten"


def test_pruning_refuses_what_a_kept_release_needs(lab: Lab) -> None:
    lab.live()
    lab.live(environment=1)
    lab.live(slug=2, environment=1)
    for number in (1, 2, 3):
        with pytest.raises(Failure, match="still needed"):
            lab.agent.prune(BLOG, [number])
    with pytest.raises(Failure, match="still needed"):
        lab.agent.prune(BLOG, [1, 2, 3])
    assert all(lab.paths.release(number).slug.exists() for number in (1, 2))
    assert lab.engine.calls == []


def test_a_failed_release_can_be_pruned_before_its_end_is_recorded(lab: Lab) -> None:
    lab.live()
    lab.release()
    lab.agent.prune(BLOG, [2])
    assert not lab.paths.release(2).slug.exists() and lab.paths.release(1).slug.exists()


def up(number: int, index: int, state: ProcessState = ProcessState.RUNNING) -> ProcessStatus:
    return ProcessStatus(number, WEB, index, state)


def test_reconcile_starts_what_is_missing_and_stops_what_is_not_live(lab: Lab) -> None:
    lab.live()
    lab.live()
    lab.engine.running = [up(1, 1), up(2, 1), up(2, 2, ProcessState.FAILED)]
    done = lab.agent.reconcile(BLOG)
    assert lab.engine.calls == [("prepare", BLOG), ("start", 2), ("boot_with", 2), ("stop", 1, False)]
    assert done == ["started web.2 of v2", "stopped v1", "reloaded nginx"]


def test_reconcile_removes_what_is_defined_and_does_not_run(lab: Lab) -> None:
    """As a power cut between switch and retiring leaves the old release: no later one looks for it."""
    lab.live()
    lab.live()
    lab.engine.running = [up(2, 1), up(2, 2)]
    lab.engine.definitions = {1, 2}
    assert lab.agent.reconcile(BLOG) == ["stopped v1", "reloaded nginx"]
    assert lab.engine.calls == [("prepare", BLOG), ("boot_with", 2), ("stop", 1, False)]


def test_reconcile_leaves_a_stopped_app_stopped(lab: Lab) -> None:
    lab.live()
    lab.ledger.change_state(lambda state: replace(state, stopped=True))
    lab.engine.running = [up(1, 1)]
    lab.agent.reconcile(BLOG)
    assert lab.engine.calls == [("prepare", BLOG), ("boot_with", 0), ("stop", 1, False)]


def test_reconcile_leaves_alone_what_is_kept_warm_and_what_the_live_release_took_over(lab: Lab) -> None:
    for _ in range(3):
        lab.live()
    lab.live(slug=2, environment=2, took_over=2)
    lab.engine.running = [up(number, index) for number in (1, 2, 3) for index in (1, 2)]
    lab.engine.kept, lab.engine.definitions = {3}, {1, 2, 3}
    assert lab.agent.reconcile(BLOG) == ["stopped v1", "reloaded nginx"]
    lab.ledger.change_state(lambda state: replace(state, stopped=True))
    assert [line for line in lab.agent.reconcile(BLOG) if "stopped" in line] == [
        "stopped v1",
        "stopped v2",
        "stopped v3",
    ]


def test_what_a_release_took_over_is_stopped_with_it_and_pruned_by_itself(lab: Lab) -> None:
    lab.live()
    lab.live()
    failed = lab.release(slug=1, environment=1, took_over=1)
    lab.agent.take_away(BLOG, failed.number)
    assert ("stop", 1, False) in lab.engine.calls, "its processes are those of v1"
    lab.engine.calls.clear()
    lab.agent.prune(BLOG, [failed.number])
    assert lab.engine.calls == [("stop", failed.number, False)], "v1 may serve again by now"


def test_what_the_live_release_needs_of_another_is_not_pruned(lab: Lab) -> None:
    lab.ledger.change_state(lambda state: replace(state, keep=1))
    for _ in range(4):
        lab.live()
    lab.live(slug=1, environment=1, took_over=2)
    with pytest.raises(Failure, match="still needed"):
        lab.agent.prune(BLOG, [2])
    lab.agent.prune(BLOG, [3])


def test_the_release_that_was_replaced_is_kept_warm_for_as_long_as_the_new_one_says(lab: Lab) -> None:
    lab.live()
    assert not lab.agent.keep_warm(BLOG, 1), "it replaced none"
    lab.live(warm=600)
    assert lab.agent.keep_warm(BLOG, 2)
    lab.live()
    assert not lab.agent.keep_warm(BLOG, 3), "it does not ask for it"
    assert lab.engine.calls == [("keep_warm", 1, 600)]


def test_what_is_kept_warm_makes_room_for_a_new_release_but_not_for_one_that_takes_it_over(lab: Lab) -> None:
    for _ in range(2):
        lab.live()
    lab.live(slug=1, environment=1, took_over=1, warm=600)
    lab.release()
    lab.agent.start(BLOG, 4)
    assert lab.engine.calls == [("cool", [1, 4]), ("start", 4)]
    lab.engine.calls.clear()
    lab.release(slug=2, environment=2, took_over=2)
    lab.agent.start(BLOG, 5)
    assert lab.engine.calls == [("start", 5)]
    lab.agent.cool(BLOG)
    assert lab.engine.calls[-1] == ("cool", [1])


def test_at_boot_every_app_is_reconciled_but_one_that_is_being_changed(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.live()
    lab.engine.running = [up(1, 1), up(1, 2)]
    lab.paths.app_lock.unlink(missing_ok=True)
    assert reconcile_all(lab.layout, lab.engines) == 0
    assert lab.engine.calls == [("prepare", BLOG), ("boot_with", 1)]
    assert not lab.paths.app_lock.exists(), "made by root, it would be no lock for shipit"
    lab.engine.calls.clear()
    with disk.locked(lab.paths.app_lock, wait=False):
        assert reconcile_all(lab.layout, lab.engines) == 0
    assert lab.engine.calls == [] and "being made" in capsys.readouterr().out


def test_an_app_that_cannot_be_reconciled_does_not_keep_the_next_from_it(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Ledger(lab.layout.app(AppName("aaa")))
    other.paths.releases.mkdir(parents=True)
    other.create()
    other.paths.current.symlink_to("v9")
    lab.live()
    assert reconcile_all(lab.layout, lab.engines) == 1
    assert ("boot_with", 1) in lab.engine.calls and "v9" in capsys.readouterr().out


def test_what_the_manager_knows_of_processes_arrives_whole(lab: Lab) -> None:
    known = [ProcessStatus(8, WEB, 1, ProcessState.STARTING, pid=9, since=1.5, restarts=2, memory=2**31)]
    lab.engine.running = known
    assert lab.agent.processes(BLOG) == known
    lab.engine.definitions = {7, 8}
    assert lab.agent.remainders(BLOG) == {7, 8}
    lab.engine.running = [ProcessStatus(6, WEB, 1, ProcessState.STOPPING)]
    assert lab.agent.remainders(BLOG) == {6, 7, 8}
