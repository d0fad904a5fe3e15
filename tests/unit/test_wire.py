from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import wire
from receiver.errors import Failure, HostFault, Rejected
from receiver.names import AppName, ConfigKey, TypeName
from receiver.root.verbs.all import Verbs
from receiver.wire import Request, Verb, decode_error, decode_request, encode_error, encode_request

BLOG = AppName("blog")
KEY = ConfigKey("GREETING")
RUN = "ab" * 20
REQUESTS = [
    Request(Verb.PING),
    Request(Verb.ADOPT, BLOG, 8),
    Request(Verb.CREATE_APP, BLOG),
    Request(Verb.DESTROY_APP, BLOG),
    Request(Verb.SNAPSHOT_CONFIG, BLOG, 8, base=7, set={KEY: "hé\n'\"$x"}, unset=(ConfigKey("OLD"),)),
    Request(Verb.READ_CONFIG, BLOG, 0),
    Request(Verb.LOG_IN, BLOG, logins={"localhost:5000": "ann:a:b ü"}),
    Request(Verb.BUILD, BLOG, 8),
    Request(Verb.LIST_PARTS, BLOG, 8),
    Request(Verb.GIVE, BLOG, 8),
    Request(Verb.MOUNT, BLOG, 8),
    Request(Verb.MEASURE, BLOG),
    Request(Verb.INSTALL_PACKAGES, BLOG, packages=("g++", "libpq-dev")),
    Request(Verb.INSTALL_PODMAN),
    Request(Verb.CLEAR_CACHE, AppName("blog")),
    Request(Verb.RELEASE_COMMAND, BLOG, 8),
    Request(Verb.CHECK_FILES, BLOG, releases=(5, 8)),
    Request(Verb.START, BLOG, 8),
    Request(Verb.CHECK_COMMAND, BLOG, 8, process=TypeName("web"), index=2),
    Request(Verb.BOOT_WITH, BLOG, 0),
    Request(Verb.STOP, BLOG, 8, wait=False),
    Request(Verb.RESTART, BLOG, 8, process=TypeName("")),
    Request(Verb.PROCESSES, BLOG),
    Request(Verb.KEEP_WARM, BLOG, 8),
    Request(Verb.WARM, BLOG),
    Request(Verb.COOL, BLOG),
    Request(Verb.PROXY, BLOG),
    Request(Verb.RUN, BLOG, 8, run=RUN, tty=True),
    Request(Verb.LOOK_EVERY, BLOG, seconds=300),
    Request(Verb.PRUNE, BLOG, releases=(1, 2)),
    Request(Verb.PUT_ASIDE, BLOG, 8),
    Request(Verb.CANCEL, BLOG, 8),
    Request(Verb.RECONCILE, BLOG),
    Request(Verb.CERTIFY, BLOG, now=True),
    Request(Verb.ADD_CERTIFICATE, BLOG),
    Request(Verb.PROVE_BY_DNS, BLOG, plugin="cloudflare", seconds=30),
    Request(Verb.REMOVE_CERTIFICATE, BLOG),
]


def body(request: Request) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(encode_request(request))
    return loaded


def test_every_verb_has_a_request_here_and_someone_who_does_it() -> None:
    assert {request.verb for request in REQUESTS} == set(Verb)
    assert all(callable(getattr(Verbs, f"do_{verb.value}")) for verb in Verb)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.verb.value)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    assert decode_request(encode_request(request_)) == request_


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.verb.value)
@pytest.mark.parametrize(
    "extra", ["path", "uid", "user", "unit", "command", "argv", "env", "cwd", "template", "sender"]
)
def test_no_request_can_name_a_path_a_user_a_unit_or_a_command(request_: Request, extra: str) -> None:
    with pytest.raises(Rejected):
        decode_request(json.dumps({**body(request_), extra: "x"}).encode())


def test_a_field_of_another_verb_is_refused() -> None:
    with pytest.raises(Rejected):
        decode_request(json.dumps({**body(Request(Verb.PROXY, BLOG)), "release": 8}).encode())


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.verb.value)
def test_a_request_that_lacks_a_field_is_refused(request_: Request) -> None:
    for name in set(body(request_)):
        with pytest.raises(Rejected):
            decode_request(json.dumps({k: v for k, v in body(request_).items() if k != name}).encode())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("app", "../etc"), ("app", "a/b"), ("app", ""), ("app", "-x"), ("app", "a" * 27), ("app", None), ("app", "a\n"),
        ("release", -1), ("release", "8"), ("release", 8.0), ("release", True), ("release", 10**10),
        ("process", "../x"), ("process", "a b"), ("index", 0), ("index", 101),
    ],
)  # fmt: skip
def test_a_field_of_another_form_is_refused(name: str, value: object) -> None:
    good = body(Request(Verb.CHECK_COMMAND, BLOG, 8, process=TypeName("web"), index=1))
    with pytest.raises(Rejected):
        decode_request(json.dumps({**good, name: value}).encode())


@pytest.mark.parametrize(
    "change", [{"SHIPIT_APP": "x"}, {"PATH": "x"}, {"1a": "x"}, {"A B": "x"}, {"A": 1}, {"A": "\0"}]
)
def test_a_config_var_that_is_none_is_refused(change: dict[str, object]) -> None:
    good = body(Request(Verb.SNAPSHOT_CONFIG, BLOG, 8))
    with pytest.raises(Rejected):
        decode_request(json.dumps({**good, "set": change}).encode())


@pytest.mark.parametrize("run", ["", "../x", "AB" * 20, "ab" * 19, "ab" * 20 + "/"])
def test_a_one_off_command_is_named_by_its_random_number_only(run: str) -> None:
    good = body(Request(Verb.RUN, BLOG, 8, run=RUN))
    with pytest.raises(Rejected):
        decode_request(json.dumps({**good, "run": run}).encode())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_refused_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(Rejected):
        decode_request(raw)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(REQUESTS), st.data())
def test_a_request_with_any_other_value_is_refused_or_typed(request_: Request, data: st.DataObject) -> None:
    changed = body(request_)
    changed[data.draw(st.sampled_from(sorted(changed)))] = data.draw(VALUES)
    try:
        decoded = decode_request(json.dumps(changed).encode())
    except Rejected:
        return
    assert decode_request(encode_request(decoded)) == decoded


def test_config_values_are_not_in_what_python_shows_of_a_request() -> None:
    assert "s3cret" not in repr(Request(Verb.SNAPSHOT_CONFIG, BLOG, 8, set={KEY: "s3cret"}))


def test_a_failure_crosses_the_socket_whole() -> None:
    sent = Rejected("what", holds="holds", hint="hint", details=["a", "b"])
    got = decode_error(json.loads(json.dumps(encode_error(sent))))
    assert (got.message, got.holds, got.hint, got.details, got.exit_code) == ("what", "holds", "hint", ("a", "b"), 2)


@pytest.mark.parametrize(
    "answer", [{}, {"message": "x"}, {"message": "x", "holds": "", "hint": "", "details": 3, "exit": 1}]
)
def test_an_answer_that_cannot_be_read_is_a_host_fault(answer: dict[str, object]) -> None:
    failure: Failure = decode_error(answer)
    assert isinstance(failure, HostFault) and failure.hint


def test_the_limits_of_a_request_leave_room_for_config_vars() -> None:
    largest = Request(Verb.SNAPSHOT_CONFIG, BLOG, 8, set={KEY: "x" * 2**17})
    assert len(encode_request(largest)) < wire.MAX_REQUEST
