"""What an app's data may take: how it is said, how full it is, and that people are told once."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from unit.agent_lab import Lab

from receiver.caller import Caller, Role
from receiver.cli.main import run
from receiver.errors import Rejected
from receiver.gate.keys import LOCAL_ADMIN
from receiver.ledger.ledger import Ledger
from receiver.model import AppState, Change, Release
from receiver.names import AppName
from receiver.ops import quota
from receiver.ops.quota import Level
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.story import beside, storage
from receiver.story.advice import advice
from receiver.story.context import AppContext

BLOG = AppName("blog")
GIB = 2**30


def test_a_size_is_read_and_what_is_none_is_refused() -> None:
    read = {text: quota.parse(text) for text in ("512M", "5G", "1T", "none", "default")}
    assert read == {"512M": 512, "5G": 5 * 1024, "1T": 1024**2, "none": 0, "default": None}
    for text in ("", "5", "0M", "-1G", "5g", "5GB", "1.5G", "٥G", "99999999T", "9999T", "5G\n"):
        with pytest.raises(Rejected, match="is no size"):
            quota.parse(text)


def test_what_is_said_for_the_app_goes_before_the_server_and_none_is_said_too() -> None:
    server, state = Settings(storage_quota=100), AppState(app=BLOG, created=0.0)
    assert [quota.of(replace(state, quota=said), server) for said in (None, 0, 7)] == [100, 0, 7]


def test_it_is_nearly_full_from_80_per_cent_and_over_beyond_all_of_it() -> None:
    used = (0, 80 * 2**20 - 1, 80 * 2**20, 100 * 2**20, 100 * 2**20 + 1)
    assert [quota.level(n, 100) for n in used] == [Level.WELL, Level.WELL, Level.NEARLY, Level.NEARLY, Level.OVER]
    assert quota.level(2**60, 0) is Level.WELL
    assert quota.sentence(BLOG, 6 * GIB, 5 * 1024) == "the data of blog takes 6G of 5G (120 %): more than it may"
    assert [quota.size(n) for n in (0, 1, 4096, 5 * 2**20, 4.2 * GIB)] == ["0K", "1K", "4K", "5M", "4.2G"]


def test_the_data_is_measured_by_the_app_s_user_who_can_write_nothing_meanwhile(lab: Lab) -> None:
    lab.engine.job = lambda job: 0
    with pytest.raises(Exception, match="could not be measured"):
        lab.agent.measure(BLOG)
    (job,) = lab.engine.jobs
    assert (job.user, job.cwd, job.writable, job.argv[0]) == ("app-blog", lab.paths.data, (), "/usr/bin/du")


@pytest.fixture
def known(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An app with a live release, whose data is as large as `sizes` says; what was told is in `told`."""

    class Known:
        def __init__(self) -> None:
            self.sizes, self.told = [0], list[str]()

        def measure(self, app: AppName) -> int:
            return self.sizes[0]

    made = Known()
    monkeypatch.setattr("receiver.story.verdict.storage", lambda ledger, reason: made.told.append(reason))
    monkeypatch.setattr(Agent, "connect", lambda path: nullcontext(made))
    return made


def test_people_are_told_once_and_again_when_it_has_shrunk_and_grown(ledger: Ledger, known: Any) -> None:
    server = Settings(storage_quota=100)
    for size in (10, 85, 90, 120, 130, 90, 10, 81):
        known.sizes = [size * 2**20]
        storage.look(ledger, known, server)
    assert [text.partition("takes ")[2] for text in known.told] == [
        "85M of 100M (85 %)", "120M of 100M (120 %): more than it may", "81M of 100M (81 %)",
    ]  # fmt: skip
    assert "The data of blog takes 81M" in storage.warning(ledger, server)
    assert storage.warning(ledger, Settings()) == "" == storage.warning(ledger, Settings(storage_quota=1000))


def test_who_is_killed_while_people_are_told_has_them_told_again(
    ledger: Ledger, known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Settings(storage_quota=100)
    known.sizes = [90 * 2**20]
    with monkeypatch.context() as killed:
        killed.setattr("receiver.story.verdict.storage", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            storage.look(ledger, known, server)
    for _ in range(2):
        storage.look(ledger, known, server)
    assert len(known.told) == 1, known.told


def test_an_app_that_is_destroyed_while_it_is_measured_keeps_nobody_from_looking_at_the_others(
    ledger: Ledger, known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = ledger.paths.layout
    other = Ledger(layout.app(AppName("zoo")))
    other.paths.releases.mkdir(parents=True)
    other.create()
    for one in (ledger, other):
        one.change_state(lambda state: replace(state, quota=1))

    def measure(app: AppName) -> int:
        if app == BLOG:
            shutil.rmtree(ledger.paths.releases)
        return 2**21

    monkeypatch.setattr(known, "measure", measure)
    monkeypatch.setattr(storage, "Layout", lambda: layout)
    assert storage.main() == 0
    assert len(known.told) == 1 and "zoo" in known.told[0]


def test_a_note_that_is_damaged_is_none(ledger: Ledger, known: Any) -> None:
    storage.measure(ledger, known, 1)
    ledger.paths.measured.write_text("{")
    assert storage.last(ledger) is None and storage.warning(ledger, Settings(storage_quota=1)) == ""


def test_an_admin_says_it_and_whoever_may_look_sees_it(
    ledger: Ledger, known: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = ledger.paths.layout
    known.sizes = [900 * 2**20]
    eve = Caller("eve", "", Role.DEPLOY)
    assert run(["storage:quota", "blog", "5G"], eve, layout) == 77 and ledger.state().quota is None
    assert run(["storage:quota", "blog", "1G"], LOCAL_ADMIN, layout) == 0 and ledger.state().quota == 1024
    assert "the data of blog takes 900M of 1G (87 %)" in capsys.readouterr().out
    assert run(["storage:quota", "blog", "--format", "json"], eve, layout) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["quota"], shown["percent"], shown["level"], shown["said by"]) == ("1G", 87, "nearly", "storage:quota")
    assert run(["storage:quota", "blog", "lots"], LOCAL_ADMIN, layout) == 2 and ledger.state().quota == 1024
    assert run(["storage:quota", "blog", "default"], LOCAL_ADMIN, layout) == 0 and ledger.state().quota is None
    ledger.change_state(lambda state: replace(state, locked="busy"))
    assert run(["storage:quota", "blog", "none"], LOCAL_ADMIN, layout) != 0 and ledger.state().quota is None


def test_an_app_that_is_full_or_has_many_places_is_given_none_by_itself(ledger: Ledger, known: Any) -> None:
    release = ledger.open_release(Change.DEPLOY, "bob")
    server = Settings(storage_quota=100)

    def full(release: Release, size: int) -> str:
        known.sizes = [size * 2**20]
        return beside.Beside(AppContext(ledger.paths.layout, server, ledger, known, known), release)._full(release)

    assert full(release, 90) == "" and "more than it may" in full(release, 120)
    many = tuple((f"a{n}", f"a{n}") for n in range(beside.MOST))
    assert "20 such places already" in full(replace(release, storage=many), 0)


def test_a_quota_of_the_machine_s_own_is_named() -> None:
    assert "storage:quota" not in advice(BLOG, ["No space left on device"])
    told = advice(BLOG, ["OSError: [Errno 122] Disk quota exceeded: '/var/lib/shipit/apps/blog/data/x'"])
    assert "The machine's own quota for the user app-blog" in told
