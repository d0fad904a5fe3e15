from __future__ import annotations

import dataclasses
import json

import pytest

from receiver.model import (
    AppState,
    Check,
    CheckKind,
    Corrupt,
    Limits,
    Listen,
    Process,
    Release,
    Source,
    Status,
    decode_app_state,
    decode_release,
    encode,
)  # fmt: skip
from receiver.names import AppName, Branch, ConfigKey, Domain, Oid, ProcessType

WEB = ProcessType("web")
RELEASE = Release(
    app=AppName("blog"), number=8, source=Source.GIT, status=Status.LIVE, by="alice", created=1.5, slug=8, environment=7,
    commit=Oid("a" * 40), branch=Branch("main"), subject="é <b>", author="Al", processes=(
        Process(WEB, "gunicorn app:app", Listen.SOCKET, Check(CheckKind.HTTP, path="/up"), 30, Limits(memory=256)),
    ), formation=((WEB, 2),), build_config=("PIP_INDEX_URL",), digest="d", finished=2.5, seconds=(("build", 0.25),),
)  # fmt: skip
STATE = AppState(app=AppName("blog"), created=1.0, domains=(Domain("a.example"),), pinned=(3,), formation=((WEB, 2),))


def test_a_release_comes_back_from_its_json_as_it_was() -> None:
    assert decode_release(encode(RELEASE)) == RELEASE
    assert decode_app_state(encode(STATE)) == STATE


def test_a_record_cut_at_any_byte_is_corrupt_and_never_something_else() -> None:
    raw = encode(RELEASE)
    for end in range(len(raw) - 1):
        if raw[:end].strip() != raw.strip():
            with pytest.raises(Corrupt):
                decode_release(raw[:end])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("app", "../x"), ("number", 0), ("number", "8"), ("number", True), ("status", "gone"), ("commit", "HEAD"),
        ("formation", [["web", 101]]), ("formation", [["We b", 1]]), ("created", "now"), ("surprise", 1),
        ("branch", "--exec=x"), ("slug", -1), ("build_config", ["a=b"]),
    ],
)  # fmt: skip
def test_a_record_with_a_bad_field_is_refused(field: str, value: object) -> None:
    data = json.loads(encode(RELEASE))
    data[field] = value
    with pytest.raises(Corrupt):
        decode_release(json.dumps(data).encode())


# Fields that records of an older version do not have.
ADDED = {"took_over": 0, "warm": 0}


def test_a_record_of_an_older_version_is_read() -> None:
    written = {name: value for name, value in json.loads(encode(RELEASE)).items() if name not in ADDED}
    assert decode_release(json.dumps(written).encode()) == RELEASE


def test_every_field_of_a_release_is_read_back() -> None:
    written = json.loads(encode(RELEASE))
    assert set(written) == {f.name for f in dataclasses.fields(Release)}
    assert {name: written[name] for name in ADDED} == ADDED
    for name in written.keys() - ADDED:
        broken = {k: v for k, v in written.items() if k != name}
        with pytest.raises(Corrupt):
            decode_release(json.dumps(broken).encode())


def test_running_lists_each_process_of_the_formation() -> None:
    assert [(p.type, i) for p, i in RELEASE.running()] == [("web", 1), ("web", 2)]
    assert ConfigKey("PIP_INDEX_URL") in RELEASE.build_config
