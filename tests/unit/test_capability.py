"""A capability is one place: this file is one, from shipit.yml over the release's record to how the release ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from trees import FakeTree

from receiver.errors import Rejected
from receiver.ledger.ledger import Ledger
from receiver.manifest.section import Said
from receiver.model import Change, Check, CheckKind, Listen, ProcessType, Release, Status, decode_release
from receiver.names import TypeName
from receiver.ops import all as ops
from receiver.ops.base import Event, What, section
from receiver.records import Corrupt, Record, encode, own, taken_over, text, whole
from receiver.runtimes.read import read_manifest
from receiver.schedule import schedule
from receiver.story import verdict


@dataclass(frozen=True)
class Bell(Record):
    """What a release keeps of its `bell:`."""

    sound: str = field(metadata=own(text))
    times: int = field(default=1, metadata=own(whole(10, low=1)))


class BellCapability:
    """Rings how a release ended into a file beside the ledger."""

    key = "bell"
    schema: Mapping[str, Any] = {
        "type": "object", "additionalProperties": False, "required": ["sound"],
        "properties": {"sound": {"type": "string", "maxLength": 20}, "times": {"type": "integer", "maximum": 10}},
    }  # fmt: skip
    kept: type[Record] = Bell
    hears = frozenset(What)

    def read(self, said: Said) -> Bell | None:
        if said.data["sound"] == "silence":
            return None
        if not said.data["sound"].isalpha():
            said.wrong("a sound is one word.", "sound", hint="sound: ding")
        return Bell(said.data["sound"], said.data.get("times", 1))

    def on(self, event: Event) -> None:
        bell = section(self, event.release)
        rung = f"{event.what.value} {event.release.name} {event.release.reason}{event.process}".strip()
        if isinstance(bell, Bell):
            rung += f" {bell.sound * bell.times}"
        with rings(event.ledger).open("a") as file:
            file.write(rung + "\n")


def rings(ledger: Ledger) -> Path:
    return ledger.paths.releases / "rings"


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch) -> BellCapability:
    made = BellCapability()
    monkeypatch.setattr(ops, "ALL", (made,))
    return made


def rung(ledger: Ledger, count: int) -> list[str]:
    """What was rung, once that are `count` lines: each event has a process of its own."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        lines = rings(ledger).read_text().splitlines() if rings(ledger).exists() else []
        if len(lines) >= count:
            return sorted(lines)
        time.sleep(0.01)
    raise AssertionError(f"only {lines}")


def opened(ledger: Ledger, **values: Any) -> Release:
    return ledger.open_release(Change.DEPLOY, "alice", **values)


def test_its_section_is_read_checked_and_kept_in_the_record(bell: BellCapability, ledger: Ledger) -> None:
    files = {"Procfile": "web: x\n", "shipit.yml": "keep: 3\nbell: {sound: ding, times: 2}\n"}
    manifest = read_manifest(FakeTree(files), ops.sections())
    assert manifest.sections == {"bell": {"sound": "ding", "times": 2}} and manifest.keep == 3
    release = decode_release(encode(opened(ledger, capabilities=manifest.sections)))
    assert section(bell, release) == Bell("ding", 2)
    quiet = read_manifest(FakeTree({**files, "shipit.yml": "bell: {sound: silence}\n"}), ops.sections())
    assert quiet.sections == {} and section(bell, opened(ledger)) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("bell: {sound: ding, louder: 1}", "shipit.yml:1: unknown key 'louder' in bell"),
        ("keep: 3\nbell:\n  sound: 9", "shipit.yml:3: bell.sound must be text"),
        ("keep: 3\nbell:\n  sound: ding dong", "shipit.yml:3: a sound is one word."),
        ("bel: {sound: ding}", "Did you mean 'bell'?"),
    ],
)
def test_what_is_wrong_in_its_section_refuses_the_push_with_the_line(
    bell: BellCapability, said: str, told: str
) -> None:
    with pytest.raises(Rejected) as refused:
        read_manifest(FakeTree({"Procfile": "web: x\n", "shipit.yml": said}), ops.sections())
    assert told in refused.value.message


def test_without_it_its_key_is_unknown() -> None:
    with pytest.raises(Rejected, match="unknown key 'bell'"):
        read_manifest(FakeTree({"Procfile": "web: x\n", "shipit.yml": "bell: {sound: ding}"}), ops.sections())


def test_a_config_change_or_a_rollback_takes_its_section_over(bell: BellCapability, ledger: Ledger) -> None:
    base = opened(ledger, capabilities={"bell": {"sound": "ding", "times": 1}, "of a newer shipit": {"a": 1}})
    after = ledger.open_release(Change.CONFIG, "bob", base)
    assert after.capabilities == base.capabilities == taken_over(base)["capabilities"]
    newer = opened(ledger, capabilities={"bell": {"sound": "ding", "times": 1, "echo": True}})
    assert section(bell, newer) == Bell("ding")


@pytest.mark.parametrize("kept", [{"sound": 1}, {}, {"sound": "a", "times": 99}])
def test_a_section_that_it_never_wrote_is_damage(bell: BellCapability, ledger: Ledger, kept: dict[str, Any]) -> None:
    with pytest.raises(Corrupt):
        section(bell, opened(ledger, capabilities={"bell": kept}))


def test_it_hears_how_each_release_ends(bell: BellCapability, ledger: Ledger) -> None:
    kept = {"capabilities": {"bell": {"sound": "ding", "times": 1}}}
    releases = [opened(ledger, **kept) for _ in range(3)]
    verdict.opened(ledger, releases[0])
    assert verdict.live(ledger, releases[0]).status is Status.LIVE
    assert verdict.failed(ledger, releases[1], "It did not start.").status is Status.FAILED
    assert verdict.cancelled(ledger, releases[2], "by alice").status is Status.CANCELLED
    verdict.retired(ledger, 1)
    verdict.crashed(ledger, 1, TypeName("web"), 1)
    assert rung(ledger, 6) == [
        "cancelled v3 by alice ding", "crashed v1 web ding", "failed v2 It did not start. ding", "live v1 ding",
        "opened v1 ding", "retired v1 ding",
    ]  # fmt: skip
    assert [ledger.release(n).status.value for n in (1, 2, 3)] == ["live", "failed", "cancelled"]


class Bad:
    """A capability that does all that one could do wrong."""

    key, kept, schema = "bad", Bell, True
    hears = frozenset(What)

    def __init__(self, wrong: Callable[[], object]) -> None:
        self.wrong = wrong

    def read(self, said: Said) -> Record | None:
        return None

    def on(self, event: Event) -> None:
        self.wrong()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: 1 / 0, lambda: os.abort(), lambda: os._exit(3), lambda: os.closerange(0, 99), lambda: time.sleep(60),
        lambda: os.kill(os.getppid(), 0),
    ],
    ids=["raises", "aborts", "exits", "closes", "hangs", "looks"],
)  # fmt: skip
def test_one_that_fails_changes_no_verdict_and_keeps_nobody_waiting(
    wrong: Callable[[], object], bell: BellCapability, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "ALL", (Bad(wrong),))
    monkeypatch.setattr(verdict, "LIMIT", 1)
    read, write = os.pipe()
    began = time.monotonic()
    release = verdict.live(ledger, opened(ledger))
    os.close(write)
    # Whoever waits for the worker's end waits for the end of a pipe.
    assert os.read(read, 1) == b""
    os.close(read)
    assert time.monotonic() - began < 0.9
    assert ledger.release(release.number).status is Status.LIVE


def test_one_whose_teller_is_about_to_end_has_moved_into_a_unit_of_its_own_before_that(
    bell: BellCapability, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """doctor at boot is a service: what it forked and left behind would be killed at its end, and tell nobody."""
    moved = tmp_path / "moved"

    class SlowAgent:
        @staticmethod
        def connect(socket: Path) -> Any:
            return nullcontext(SlowAgent())

        def adopt(self, app: str, number: int) -> None:
            time.sleep(0.3)
            moved.write_text(f"{app} {number} {os.getppid() != parent}")

    release, parent = opened(ledger), os.getppid()
    monkeypatch.setattr(verdict, "Agent", SlowAgent)
    verdict.crashed(ledger, release.number, TypeName("web"), 1, apart=True)
    assert moved.read_text() == f"{release.app} {release.number} True"


def test_the_next_one_is_told_when_one_fails(
    bell: BellCapability, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "ALL", (Bad(lambda: 1 / 0), bell))
    verdict.live(ledger, opened(ledger))
    assert rung(ledger, 1) == ["live v1"]


class StrikingCapability(BellCapability):
    """It has something run, too."""

    def processes(self, kept: Bell) -> tuple[ProcessType, ...]:
        check = Check(CheckKind.UPTIME)
        return (
            ProcessType(TypeName("strike"), f"strike {kept.times}", Listen.NONE, check),
            ProcessType(TypeName("hours"), f"say {kept.sound}", Listen.NONE, check, schedule=schedule("@hourly")),
        )


def test_what_it_has_run_are_process_types_of_the_release_beside_the_apps_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "ALL", (StrikingCapability(),))
    files = {"Procfile": "web: x\nworker: y\n", "shipit.yml": "bell: {sound: ding, times: 2}\n"}
    manifest = read_manifest(FakeTree(files), ops.sections())
    assert {process.type: process.command for process in manifest.processes} == {
        "web": "x", "worker": "y", "strike": "strike 2", "hours": "say ding"
    }  # fmt: skip
    assert dict(manifest.formation) == {"web": 1, "worker": 0, "strike": 1}
    with pytest.raises(Rejected, match=r"shipit.yml: bell: strike would run, which the app has, too"):
        read_manifest(FakeTree({**files, "Procfile": "web: x\nstrike: y\n"}), ops.sections())
    assert {
        process.type for process in read_manifest(FakeTree({"Procfile": "web: x\n"}), ops.sections()).processes
    } == {"web"}
