"""The agent over a real socket, with its real client; the manager is one that writes down what it was asked."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver import wire
from receiver.errors import Failure, HostFault, NotFound, Rejected
from receiver.host import accounts, agent, disk, proxy
from receiver.host.client import Agent
from receiver.host.ledger import Ledger
from receiver.host.manager import Job, ProcessState, ProcessStatus
from receiver.host.reconcile import reconcile_all
from receiver.model import Check, CheckKind, Listen, Process, Release, Source, Status
from receiver.names import AppName, ConfigKey, ProcessType
from receiver.paths import Layout

BLOG, WEB = AppName("blog"), ProcessType("web")
A, B, C = ConfigKey("A"), ConfigKey("B"), ConfigKey("C")


class FakeManager:
    """Writes down what it was asked and does none of it; `job` is what running one does."""

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.running: list[ProcessStatus] = []
        self.definitions: set[int] = set()
        self.job: Callable[[Job], int] = lambda job: 0
        self.jobs: list[Job] = []
        self.stopped = threading.Event()

    def adopt(self, app: AppName, number: int, pid: int) -> None:
        self.calls.append(("adopt", number, pid))

    def expect_jobs(self) -> None:
        """Whether it is called depends on who is quicker."""

    def prepare(self, app: AppName) -> None:
        self.calls.append(("prepare", app))

    def forget(self, app: AppName) -> None:
        self.calls.append(("forget", app))

    def start(self, release: Release) -> None:
        self.calls.append(("start", release.number))

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        self.calls.append(("stop", number, wait))

    def boot_with(self, app: AppName, release: Release | None) -> None:
        self.calls.append(("boot_with", release.number if release else 0))

    def restart(self, release: Release, kind: ProcessType | None) -> None:
        self.calls.append(("restart", release.number, kind))

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        return self.running

    def defined(self, app: AppName) -> set[int]:
        return self.definitions

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        self.jobs.append(job)
        return self.job(job)

    def stop_job(self, name: str) -> None:
        self.calls.append(("stop_job", name))
        self.stopped.set()


class Lab:
    """An app with a ledger below a directory, and an agent that serves one connection."""

    def __init__(self, root: Path) -> None:
        self.layout, self.manager = Layout(root), FakeManager()
        self.paths = self.layout.app(BLOG)
        for path in (self.paths.releases, self.paths.config, self.paths.slugs, self.paths.data, self.layout.run):
            path.mkdir(parents=True)
        self.ledger = Ledger(self.paths)
        self.ledger.create()
        ours, theirs = socket.socketpair()
        self.raw = ours
        self.agent = Agent(ours, self.layout.agent_socket)
        self.thread = threading.Thread(target=self.serve, args=(theirs,))
        self.thread.start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            agent.serve(self.layout, connection, self.manager, iter(()))

    def release(self, **values: Any) -> Release:
        web = Process(WEB, "run", Listen.SOCKET, Check(CheckKind.COMMAND, command="check"))
        known = {"processes": (web,), "formation": ((WEB, 2),), "release_command": "migrate", **values}
        made = self.ledger.open_release(Source.GIT, "alice", **known)
        made = self.ledger.save(
            replace(made, slug=made.slug or made.number, environment=made.environment or made.number)
        )
        slug = self.paths.release(made.slug).slug
        slug.mkdir(exist_ok=True)
        (slug / "file").write_text("x")
        return made

    def live(self, **values: Any) -> Release:
        made = self.release(**values)
        made = self.ledger.finish(made, Status.LIVE)
        self.ledger.commit(made)
        return made

    def close(self) -> None:
        self.agent.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(agent, "allowed", lambda connection: True)
    monkeypatch.setattr(accounts, "ids_of", lambda paths: accounts.Ids(os.getuid(), os.getgid(), os.getuid()))
    monkeypatch.setattr(proxy, "apply", lambda layout, settings, app: True)
    made = Lab(tmp_path)
    yield made
    made.close()


def answer_to(lab: Lab, line: bytes) -> dict[str, Any]:
    lab.raw.sendall(line)
    answer: dict[str, Any] = json.loads(lab.raw.makefile("rb").readline())
    return answer


def test_a_failed_call_leaves_the_connection_for_the_next(lab: Lab) -> None:
    with pytest.raises(Failure) as caught:
        lab.agent.start(BLOG, 9)
    assert caught.value.exit_code == NotFound.exit_code and "v9" in caught.value.message
    lab.agent.ping()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b'{"v":1,"verb":"shell"}\n', b"GET / HTTP/1.1\n", b"\xff\n"])
def test_what_is_no_request_is_refused_and_nothing_is_done(lab: Lab, line: bytes) -> None:
    assert answer_to(lab, line)["error"]["exit"] == Rejected.exit_code
    assert lab.manager.calls == []


def test_a_request_without_an_end_is_cut_off_at_the_limit(lab: Lab) -> None:
    def send() -> None:
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            while True:
                lab.raw.sendall(b"x" * 65536)

    sender = threading.Thread(target=send)
    sender.start()
    answer = json.loads(lab.raw.makefile("rb").readline())
    sender.join(10)
    assert answer["error"]["exit"] == Rejected.exit_code and not sender.is_alive()


def test_two_requests_at_once_are_refused(lab: Lab) -> None:
    ping = wire.encode_request(wire.Request(wire.Verb.PING))
    assert "error" in answer_to(lab, ping + ping)


def test_a_request_with_descriptors_too_many_or_too_few_is_refused(lab: Lab) -> None:
    lab.release()
    request = wire.Request(wire.Verb.RELEASE_COMMAND, BLOG, 1)
    for fds in ((), (0, 1)):
        with pytest.raises(Failure, match="number of descriptors"):
            lab.agent._call(request, fds)
    assert lab.manager.jobs == []


def test_descriptors_that_were_passed_do_not_pile_up(lab: Lab) -> None:
    lab.release()
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        assert lab.agent.release_command(BLOG, 1, write) == 0
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(write)
    assert os.read(read, 1) == b"", "somebody still holds the pipe"
    os.close(read)


def test_an_unexpected_error_is_told_in_the_journal_and_not_to_the_peer(
    lab: Lab, capfd: pytest.CaptureFixture[str]
) -> None:
    lab.release()

    def bug(job: Job) -> int:
        raise ZeroDivisionError("the value is hunter2")

    lab.manager.job = bug
    with pytest.raises(Failure) as caught:
        lab.agent.release_command(BLOG, 1, 1)
    assert "hunter2" not in "\n".join(caught.value.lines()) and caught.value.exit_code == HostFault.exit_code
    assert "hunter2" in capfd.readouterr().err
    lab.agent.ping()


def test_each_call_is_one_line_in_the_journal_without_any_value(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    lab.release()
    lab.agent.snapshot_config(BLOG, 1, 0, {A: "s3cret"}, [])
    lab.agent.read_config(BLOG, 1)
    err = capfd.readouterr().err
    told = [json.loads(line) for line in err.splitlines()]
    assert [(t["verb"], t["app"], t["release"], t["result"]) for t in told] == [
        ("snapshot_config", "blog", 1, "ok"), ("read_config", "blog", 1, "ok"),
    ]  # fmt: skip
    assert all(t["seconds"] >= 0 for t in told) and "s3cret" not in err


def test_the_worker_is_moved_by_the_kernels_word_on_who_asks(lab: Lab) -> None:
    lab.agent.adopt(BLOG, 3)
    assert lab.manager.calls == [("adopt", 3, os.getpid())]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_nobody_can_have_another_process_moved(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    os.seteuid(65534)
    try:
        with pytest.raises(HostFault):
            lab.agent.adopt(BLOG, 3)
    finally:
        os.seteuid(0)
    assert lab.manager.calls == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_only_shipit_and_root_are_answered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        for parent in (tmp_path, *tmp_path.parents):
            parent.chmod(parent.stat().st_mode | 0o011)
        server.listen()
        os.seteuid(65534)  # what the kernel notes at connect(2)
        try:
            stranger = Agent.connect(path)
        finally:
            os.seteuid(0)
        connection, _ = server.accept()
        stranger._send(wire.encode_request(wire.Request(wire.Verb.PING)), (), ())
        stranger._connection.shutdown(socket.SHUT_WR)
        with connection:
            assert agent.serve(Layout(tmp_path), connection, FakeManager(), iter(())) == 1
        with stranger, pytest.raises(OSError, match=r"closed|reset"):
            stranger._line()
    assert json.loads(capfd.readouterr().err)["uid"] == 65534


def test_an_agent_that_is_not_there_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(HostFault) as caught:
        Agent.connect(tmp_path / "missing.sock")
    assert "sudo shipit doctor" in "\n".join(caught.value.lines())


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
    (job,) = lab.manager.jobs
    of = lab.paths.release(release.number)
    assert (job.user, job.cwd, job.build, job.config) == ("build-blog", of.slug, True, None)
    assert job.writable == (of.slug, lab.paths.cache) and job.argv[-2:] == ("blog", "1") and job.timeout == 1800
    assert result.code == 0 and len(result.digest) == 64
    assert stat.S_IMODE(of.slug.stat().st_mode) == 0o2750 and not list(of.slug.iterdir()), "a leftover was built upon"


def test_a_build_gets_the_config_vars_that_the_manifest_names_and_no_other(lab: Lab) -> None:
    lab.live()
    lab.agent.snapshot_config(BLOG, 2, 0, {A: "1", B: "2"}, [])
    release = lab.release(config_base=2, build_config=("A", "C"))
    seen = []

    def build(job: Job) -> int:
        assert job.config
        seen.append((json.loads(job.config.read_bytes()), stat.S_IMODE(job.config.stat().st_mode)))
        return 5

    lab.manager.job = build
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


def test_a_release_command_runs_as_the_app_with_its_config_and_writes_its_data_only(lab: Lab) -> None:
    lab.release()
    lab.manager.job = lambda job: 3
    assert lab.agent.release_command(BLOG, 1, 1) == 3
    (job,) = lab.manager.jobs
    assert (job.user, job.build, job.config) == ("app-blog", False, lab.paths.release(1).config)
    assert set(job.writable) == {lab.paths.data, lab.paths.sockets} and "migrate" not in " ".join(job.argv)


def test_only_a_process_of_the_formation_with_a_command_check_is_checked_so(lab: Lab) -> None:
    lab.release()
    assert lab.agent.check_command(BLOG, 1, WEB, 2, 1) == 0
    for index, kind in ((3, WEB), (1, ProcessType("worker"))):
        with pytest.raises(Failure):
            lab.agent.check_command(BLOG, 1, kind, index, 1)
    assert len(lab.manager.jobs) == 1


def test_a_job_is_stopped_when_whoever_asked_for_it_hangs_up(lab: Lab) -> None:
    lab.release()
    begun = threading.Event()

    def wait(job: Job) -> int:
        begun.set()
        return 0 if lab.manager.stopped.wait(10) else 1

    lab.manager.job = wait

    def ask() -> None:
        with pytest.raises(Failure):
            lab.agent.release_command(BLOG, 1, 1)

    asker = threading.Thread(target=ask)
    asker.start()
    assert begun.wait(10)
    lab.raw.shutdown(socket.SHUT_RDWR)
    asker.join(10)
    assert lab.manager.stopped.wait(10)
    assert ("stop_job", "release-blog-v1") in lab.manager.calls


def test_cancel_stops_every_job_of_the_release(lab: Lab) -> None:
    lab.release()
    lab.agent.cancel(BLOG, 1)
    assert [name for _, name in lab.manager.calls] == [
        "build-blog-v1", "release-blog-v1", "check-blog-v1-web-1", "check-blog-v1-web-2",
    ]  # fmt: skip


def test_a_release_whose_slug_lost_a_file_is_not_started(lab: Lab) -> None:
    lab.live()
    result = lab.agent.build(BLOG, 1, 0, 1)
    lab.ledger.save(replace(lab.ledger.release(1), digest=result.digest))
    rollback = lab.ledger.open_release(Source.ROLLBACK, "alice", slug=1, environment=1)
    lab.agent.start(BLOG, rollback.number)
    (lab.paths.release(1).slug / "lost").write_text("")
    lab.manager.calls.clear()
    with pytest.raises(Failure, match="not those that were built"):
        lab.agent.start(BLOG, rollback.number)
    assert lab.manager.calls == []


def test_the_files_are_looked_at_while_the_worker_is_forked_and_a_later_start_looks_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.live()
    result = lab.agent.build(BLOG, 1, 0, 1)
    lab.ledger.save(replace(lab.ledger.release(1), digest=result.digest))
    change = lab.ledger.open_release(Source.CONFIG, "alice", slug=1, environment=1)
    looked: list[Path] = []
    digest = disk.digest_tree
    monkeypatch.setattr(disk, "digest_tree", lambda path, limit: [looked.append(path), digest(path, limit)][1])
    lab.agent.snapshot_config(BLOG, change.number, 0, {A: "1"}, [])
    lab.agent.start(BLOG, change.number)
    assert len(looked) == 1
    (lab.paths.release(1).slug / "lost").write_text("")
    with pytest.raises(Failure, match="not those that were built"):
        lab.agent.start(BLOG, change.number)


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
    assert lab.manager.calls == []


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
    lab.manager.running = [up(1, 1), up(2, 1), up(2, 2, ProcessState.FAILED)]
    done = lab.agent.reconcile(BLOG)
    assert lab.manager.calls == [("prepare", BLOG), ("start", 2), ("boot_with", 2), ("stop", 1, False)]
    assert done == ["started web.2 of v2", "stopped v1", "reloaded nginx"]


def test_reconcile_removes_what_is_defined_and_does_not_run(lab: Lab) -> None:
    """As a power cut between switch and retiring leaves the old release: no later one looks for it."""
    lab.live()
    lab.live()
    lab.manager.running = [up(2, 1), up(2, 2)]
    lab.manager.definitions = {1, 2}
    assert lab.agent.reconcile(BLOG) == ["stopped v1", "reloaded nginx"]
    assert lab.manager.calls == [("prepare", BLOG), ("boot_with", 2), ("stop", 1, False)]


def test_reconcile_leaves_a_stopped_app_stopped(lab: Lab) -> None:
    lab.live()
    lab.ledger.change_state(lambda state: replace(state, stopped=True))
    lab.manager.running = [up(1, 1)]
    lab.agent.reconcile(BLOG)
    assert lab.manager.calls == [("prepare", BLOG), ("boot_with", 0), ("stop", 1, False)]


def test_at_boot_every_app_is_reconciled_but_one_that_is_being_changed(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.live()
    lab.manager.running = [up(1, 1), up(1, 2)]
    lab.paths.app_lock.unlink(missing_ok=True)
    assert reconcile_all(lab.layout, lab.manager) == 0
    assert lab.manager.calls == [("prepare", BLOG), ("boot_with", 1)]
    assert not lab.paths.app_lock.exists(), "made by root, it would be no lock for shipit"
    lab.manager.calls.clear()
    with disk.locked(lab.paths.app_lock, wait=False):
        assert reconcile_all(lab.layout, lab.manager) == 0
    assert lab.manager.calls == [] and "being made" in capsys.readouterr().out


def test_an_app_that_cannot_be_reconciled_does_not_keep_the_next_from_it(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Ledger(lab.layout.app(AppName("aaa")))
    other.paths.releases.mkdir(parents=True)
    other.create()
    other.paths.current.symlink_to("v9")
    lab.live()
    assert reconcile_all(lab.layout, lab.manager) == 1
    assert ("boot_with", 1) in lab.manager.calls and "v9" in capsys.readouterr().out


def test_what_the_manager_knows_of_processes_arrives_whole(lab: Lab) -> None:
    known = [ProcessStatus(8, WEB, 1, ProcessState.STARTING, pid=9, since=1.5, restarts=2, memory=2**31)]
    lab.manager.running = known
    assert lab.agent.processes(BLOG) == known


def test_an_app_that_does_not_exist_is_not_found(lab: Lab) -> None:
    for call in (lab.agent.read_config, lab.agent.start, lab.agent.cancel):
        with pytest.raises(Failure) as caught:
            call(AppName("other"), 1)
        assert caught.value.exit_code == NotFound.exit_code


def test_a_record_of_another_app_is_not_believed(lab: Lab) -> None:
    lab.release()
    record = lab.paths.release(1).record
    record.write_text(record.read_text().replace('"blog"', '"other"'))
    with pytest.raises(Failure, match="belongs to"):
        lab.agent.start(BLOG, 1)
    assert lab.manager.calls == []


def test_closing_the_connection_ends_the_agents_process(lab: Lab) -> None:
    lab.agent.ping()
    lab.agent.close()
    deadline = time.monotonic() + 5
    while lab.thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
