from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from receiver import records
from receiver.model import (
    AppState,
    Change,
    Check,
    CheckKind,
    Limits,
    Listen,
    Origin,
    ProcessEnv,
    ProcessType,
    Release,
    Status,
    decode_app_state,
    decode_release,
)
from receiver.names import AppName, ConfigKey, Domain, TypeName
from receiver.records import FORMAT, Corrupt, Format, Newer, encode

WEB = TypeName("web")
RELEASE = Release(
    app=AppName("blog"), number=8, change=Change.DEPLOY, status=Status.LIVE, by="alice", created=1.5, slug=8, environment=7,
    origin=Origin("git", "a" * 40, "é <b>", "Al", "main"), processes=(
        ProcessType(WEB, "gunicorn app:app", Listen.SOCKET, Check(CheckKind.HTTP, path="/up"), 30, Limits(memory=256)),
    ), formation=((WEB, 2),), build_config=("PIP_INDEX_URL",), digest="d", finished=2.5, seconds=(("build", 0.25),),
)  # fmt: skip
STATE = AppState(app=AppName("blog"), created=1.0, domains=(Domain("a.example"),), pinned=(3,), formation=((WEB, 2),))
Decode = Callable[[bytes], object]
BOTH = pytest.mark.parametrize(("value", "decode"), [(RELEASE, decode_release), (STATE, decode_app_state)])


def fields(value: Release | AppState) -> dict[str, Any]:
    """What is written of a value, but the checksum."""
    found: dict[str, Any] = json.loads(encode(value))
    del found["sum"]
    return found


def plain(data: dict[str, Any]) -> bytes:
    """A file as a version wrote it that knew no checksum."""
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def summed(data: dict[str, Any]) -> bytes:
    """A file whose checksum fits, whatever its fields are."""
    rest = plain(data).removeprefix(b"{\n")
    return b'{\n "sum": "%08x",\n' % zlib.crc32(rest) + rest


def is_corrupt(decode: Decode, raw: bytes) -> bool:
    try:
        decode(raw)
    except Corrupt:
        return True
    return False


def test_a_release_comes_back_from_its_json_as_it_was() -> None:
    assert decode_release(encode(RELEASE)) == RELEASE
    assert decode_app_state(encode(STATE)) == STATE


@BOTH
def test_what_is_written_is_canonical_json_of_the_fields_below_its_checksum(
    value: Release | AppState, decode: Decode
) -> None:
    raw = encode(value)
    assert raw == summed(fields(value))
    assert list(json.loads(raw)) == ["sum", *sorted(records.rows(type(value)))]
    read = decode(raw)
    assert isinstance(read, (Release, AppState)) and encode(read) == raw


@BOTH
def test_any_byte_changed_to_any_other_is_corrupt(value: Release | AppState, decode: Decode) -> None:
    raw = encode(value)
    for at, was in enumerate(raw):
        changed = bytearray(raw)
        for byte in {*range(256)} - {was}:
            changed[at] = byte
            assert is_corrupt(decode, bytes(changed)), f"{chr(was)!r} at {at} changed to {chr(byte)!r} is not seen"


@BOTH
def test_a_file_cut_at_any_byte_is_corrupt_and_never_something_else(value: Release | AppState, decode: Decode) -> None:
    raw = encode(value)
    for end in range(len(raw)):
        assert is_corrupt(decode, raw[:end]), f"cut at {end}"
    old = plain(fields(value))
    # Without its last newline it is still whole.
    for end in range(len(old) - 1):
        assert is_corrupt(decode, old[:end]), f"of an older version, cut at {end}"


@BOTH
def test_a_checksum_counts_only_where_it_is_written(value: Release | AppState, decode: Decode) -> None:
    """Nothing would compare one that stands elsewhere: it is an unknown field, even below one that fits."""
    raw = encode(value)
    data = json.loads(raw)
    for other in (json.dumps(data).encode(), plain(data), summed(data), b"\n" + raw):
        assert is_corrupt(decode, other), other


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("app", "../x"), ("number", 0), ("number", "8"), ("number", True), ("status", "gone"), ("origin", "HEAD"),
        ("formation", [["web", 101]]), ("formation", [["We b", 1]]), ("created", "now"), ("surprise", 1),
        ("origin", {"kind": "git"}), ("slug", -1), ("build_config", ["a=b"]),
        ("static", "../v7"), ("static", "/srv"),
    ],
)  # fmt: skip
def test_a_record_with_a_bad_field_is_refused(field: str, value: object) -> None:
    data = {**fields(RELEASE), field: value}
    for raw in (plain(data), summed(data)):
        with pytest.raises(Corrupt) as told:
            decode_release(raw)
        assert "checksum" not in told.value.message, "it fits"


def as_before_origins() -> dict[str, Any]:
    """The fields of RELEASE as they were before format 1.1."""
    written = fields(RELEASE)
    for name in ("format", "change", "origin"):
        del written[name]
    said = {"commit": "a" * 40, "branch": "main", "subject": "é <b>", "author": "Al"}
    return {**written, **said, "source": "git"}


def test_a_record_of_an_older_version_is_read() -> None:
    """Before format 1.1 a record had no format, and the oldest knew nothing of keeping warm."""
    written = as_before_origins()
    added = [name for name, row in records.rows(Release).items() if row.since > records.FIRST and name in written]
    oldest = {name: value for name, value in written.items() if name not in added}
    assert {"warm", "domains", "capabilities"} <= {*added}
    for was in (written, oldest):
        assert decode_release(plain(was)) == RELEASE
    nothing = {**written, "commit": None, "branch": None, "subject": "", "author": "", "source": "config"}
    was = decode_release(plain(nothing))
    assert (was.origin, was.change) == (None, Change.CONFIG)
    for bad in ({"branch": 1}, {"source": "gone"}, {"subject": None}):
        assert is_corrupt(decode_release, plain({**written, **bad}))
    state = fields(STATE)
    for name in ("format", "approved", "without_default"):
        del state[name]
    assert decode_app_state(plain(state)) == STATE


@BOTH
def test_what_every_record_of_its_format_has_may_not_be_missing(value: Release | AppState, decode: Decode) -> None:
    written = fields(value)
    assert set(written) == {f.name for f in dataclasses.fields(value)} - {"unknown"}, "a field without a row"
    for name in written.keys() - {"format"}:
        broken = {k: v for k, v in written.items() if k != name}
        for raw in (plain(broken), summed(broken)):
            with pytest.raises(Corrupt, match=f"{name} is missing"):
                decode(raw)


# What a config change, a scale, a restart and a rollback take over from their base, and what each release has for itself.
CARRIED = {
    "slug", "environment", "environment_key", "origin", "runtime", "release_command",
    "processes", "formation", "build_config", "env", "digest", "warm", "serving",
    "domains", "capabilities", "process_env", "shares", "static", "storage", "image", "machine", "apt",
}  # fmt: skip
OWN = {
    "app", "number", "format", "change", "status", "by", "created", "config_base", "target", "took_over", "fresh",
    "message", "previous", "finished", "seconds", "reason", "key",
}  # fmt: skip


def test_of_every_field_it_is_said_whether_it_is_carried() -> None:
    said = {name: row.carried for name, row in records.rows(Release).items()}
    assert said == {**dict.fromkeys(CARRIED, True), **dict.fromkeys(OWN, False)}


def test_a_release_takes_over_the_carried_fields_of_its_base_and_no_other() -> None:
    base = dataclasses.replace(
        RELEASE, warm=60, environment_key="k", runtime="python", release_command="r", env=((ConfigKey("A"), "b"),),
        domains=(Domain("a.example"),), capabilities={"x": {"y": 1}}, process_env=ProcessEnv(("bin",)), shares=(7,),
        static="dist", storage=(("a", "b"),), image=True, machine=True,
        target=3, config_base=4, took_over=5, previous=6, fresh=True, message="m", reason="r", key="SHA256:x",
    )  # fmt: skip
    made = Release(
        app=AppName("blog"), number=9, change=Change.SCALE, status=Status.STARTING, by="bob",
        created=3.0, **records.taken_over(base),
    )  # fmt: skip
    assert {name for name in CARRIED | OWN if getattr(made, name) == getattr(base, name)} == CARRIED | {"app", "format"}


NEXT = Format(FORMAT.major, FORMAT.minor + 1)


@dataclasses.dataclass(frozen=True)
class NextCheck(Check):
    """As the next version has it."""

    every: int = dataclasses.field(default=5, metadata=records.own(records.whole(60), since=NEXT))


@dataclasses.dataclass(frozen=True)
class NextProcessType(ProcessType):
    check: Check = dataclasses.field(metadata=records.own(records.nested(NextCheck)))


@dataclasses.dataclass(frozen=True)
class NextRelease(Release):
    processes: tuple[ProcessType, ...] = dataclasses.field(
        default=(), metadata=records.carried(records.many(records.nested(NextProcessType)))
    )
    wind: str = dataclasses.field(default="", metadata=records.carried(records.text, since=NEXT))


def written_by_the_next() -> bytes:
    check = NextCheck(CheckKind.HTTP, path="/up", every=7)
    process = dataclasses.replace(RELEASE.processes[0], check=check)
    values = {name: getattr(RELEASE, name) for name in records.rows(Release)}
    return encode(NextRelease(**{**values, "format": NEXT, "processes": (process,), "wind": "west"}))


def test_an_upgrade_can_be_undone_and_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next version wrote this one reads, changes, and writes without losing what it does not know."""
    release = decode_release(written_by_the_next())
    assert not release.is_known and release.unknown == {"wind": "west"}
    assert release.processes[0].check.unknown == {"every": 7}
    changed = encode(dataclasses.replace(release, status=Status.FAILED, reason="by the older one"))
    monkeypatch.setattr(records, "FORMAT", NEXT)
    again = records.decode(NextRelease, changed, "release.json")
    assert again.processes[0].check == NextCheck(CheckKind.HTTP, path="/up", every=7)
    assert (again.wind, again.reason, again.format) == ("west", "by the older one", NEXT)
    # And it reads what the older one writes: what is missing there has its default.
    old = records.decode(NextRelease, encode(RELEASE), "release.json")
    assert (old.wind, old.number, old.format) == ("", 8, NEXT)


def test_what_is_made_from_a_newer_release_holds_only_what_is_known() -> None:
    release = decode_release(written_by_the_next())
    made = dataclasses.replace(RELEASE, number=9, **records.taken_over(release))
    assert made.is_known and not made.unknown and not made.processes[0].check.unknown
    assert decode_release(encode(made)) == made


def test_root_starts_nothing_by_a_record_that_it_does_not_know_whole() -> None:
    with pytest.raises(Newer, match=r"blog v8 was written by a newer shipit \(format 1\.\d+; this one knows 1\.\d+\)"):
        decode_release(written_by_the_next()).must_be_known()
    RELEASE.must_be_known()


@BOTH
def test_a_record_of_the_next_major_format_is_not_damaged_but_newer(value: Release | AppState, decode: Decode) -> None:
    with pytest.raises(Newer):
        decode(summed({**fields(value), "format": f"{FORMAT.major + 1}.0"}))
    for bad in ("0.9", "1", "1.01", "1.x", "", 1.1, None, "1.1\n", "١.1"):
        assert is_corrupt(decode, summed({**fields(value), "format": bad})), bad


def test_an_unknown_field_is_only_a_newer_shipits() -> None:
    for place in ({**fields(RELEASE), "wind": 1}, fields(RELEASE)):
        place["processes"][0]["check"]["every"] = 7
        assert is_corrupt(decode_release, summed(place))


def test_running_lists_each_process_of_the_formation() -> None:
    assert [(p.type, i) for p, i in RELEASE.running()] == [("web", 1), ("web", 2)]
    assert ConfigKey("PIP_INDEX_URL") in RELEASE.build_config
