from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from receiver.model import (
    AppState,
    Check,
    CheckKind,
    Corrupt,
    Limits,
    Listen,
    ProcessType,
    Release,
    Source,
    Status,
    decode_app_state,
    decode_release,
    encode,
)  # fmt: skip
from receiver.names import AppName, Branch, ConfigKey, Domain, Oid, TypeName

WEB = TypeName("web")
RELEASE = Release(
    app=AppName("blog"), number=8, source=Source.GIT, status=Status.LIVE, by="alice", created=1.5, slug=8, environment=7,
    commit=Oid("a" * 40), branch=Branch("main"), subject="é <b>", author="Al", processes=(
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
    assert list(json.loads(raw)) == ["sum", *sorted(f.name for f in dataclasses.fields(value))]
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
        ("app", "../x"), ("number", 0), ("number", "8"), ("number", True), ("status", "gone"), ("commit", "HEAD"),
        ("formation", [["web", 101]]), ("formation", [["We b", 1]]), ("created", "now"), ("surprise", 1),
        ("branch", "--exec=x"), ("slug", -1), ("build_config", ["a=b"]),
    ],
)  # fmt: skip
def test_a_record_with_a_bad_field_is_refused(field: str, value: object) -> None:
    data = {**fields(RELEASE), field: value}
    for raw in (plain(data), summed(data)):
        with pytest.raises(Corrupt) as told:
            decode_release(raw)
        assert "checksum" not in told.value.message, "it fits"


# Fields that records of an older version do not have.
ADDED: dict[str, object] = {"took_over": 0, "warm": 0, "domains": []}


def test_a_record_of_an_older_version_is_read() -> None:
    for written in (fields(RELEASE), {name: value for name, value in fields(RELEASE).items() if name not in ADDED}):
        assert decode_release(plain(written)) == RELEASE
    assert decode_app_state(plain(fields(STATE))) == STATE


def test_every_field_of_a_release_is_read_back() -> None:
    written = fields(RELEASE)
    assert set(written) == {f.name for f in dataclasses.fields(Release)}
    assert {name: written[name] for name in ADDED} == ADDED
    for name in written.keys() - ADDED:
        broken = {k: v for k, v in written.items() if k != name}
        for raw in (plain(broken), summed(broken)):
            with pytest.raises(Corrupt, match=f"{name} is missing"):
                decode_release(raw)


def test_running_lists_each_process_of_the_formation() -> None:
    assert [(p.type, i) for p, i in RELEASE.running()] == [("web", 1), ("web", 2)]
    assert ConfigKey("PIP_INDEX_URL") in RELEASE.build_config
