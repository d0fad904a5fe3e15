"""The grammar of the gate: a text is a request as a whole, or it is refused (threat row 1)."""

from __future__ import annotations

import contextlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Rejected
from receiver.gate.ask import COMMAND, key_of
from receiver.gate.push import Options, options
from receiver.gate.request import MAX, CliRequest, GitRequest, Greeting, Service, parse, split
from receiver.names import AppName


@pytest.mark.parametrize(
    "text",
    ["git-receive-pack 'blog'", "git receive-pack 'blog'", "git-receive-pack '/blog'", "git-receive-pack '/blog.git'"],
)
def test_a_push_is_recognised_however_git_writes_it(text: str) -> None:
    assert parse(text.encode()) == GitRequest(Service.RECEIVE, AppName("blog"))


def test_a_fetch_is_recognised() -> None:
    assert parse(b"git-upload-pack 'blog'") == GitRequest(Service.UPLOAD, AppName("blog"))


@pytest.mark.parametrize(
    "text",
    [
        "git-receive-pack blog",
        'git-receive-pack "blog"',
        "git-receive-pack ''",
        "git-receive-pack '//blog'",
        "git-receive-pack '~/blog'",
        "git-receive-pack 'blog/'",
        "git-receive-pack 'blog' ",
        "git-receive-pack  'blog'",
        "git-receive-pack 'blog' 'x'",
        "git-receive-pack 'blog'; id",
        "git-receive-pack 'a'\\''b'",
        "git-receive-pack 'blog.git.git'",
        "git-receive-pack 'Blog'",
        "git-receive-pack '..'",
        "git-receive-pack '.git'",
        "git-receive-pack 'x.lock'",
        "git-receive-pack '--help'",
        "git-receive-pack '" + "a" * 300 + "'",
        "git-receive-pack 'é'",
        "git-upload-archive 'blog'",
        "git --version",
        "git-",
    ],
)
def test_anything_like_git_that_is_not_exactly_git_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        parse(text.encode())


@pytest.mark.parametrize(
    "raw", [b"apps\nid", b"apps\0", b"apps\r", b"a\tb", b"\x1b[2J", b"apps\x7f", "a\u2028b".encode()]
)
def test_control_characters_are_refused(raw: bytes) -> None:
    with pytest.raises(Rejected):
        parse(raw)


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Rejected):
        parse(b"apps \xff")


def test_too_long_a_command_is_refused() -> None:
    parse(b"x " + b"a" * (MAX - 2))
    with pytest.raises(Rejected):
        parse(b"x " + b"a" * MAX)
    with pytest.raises(Rejected):
        parse(b"x " * 2000)


@pytest.mark.parametrize(
    "text", ["apps; id", "apps | sh", "apps & id", "apps > /x", "$(id) `id`", "a 'b", 'a "b', "a \\"]
)
def test_what_a_shell_would_do_is_refused_and_not_ignored(text: str) -> None:
    with pytest.raises(Rejected):
        parse(text.encode())


@pytest.mark.parametrize("raw", [None, b"", b"  ", b"shipit", b" shipit "])
def test_nothing_is_a_greeting(raw: bytes | None) -> None:
    assert parse(raw) == Greeting()


def test_shipit_in_front_may_be_left_out() -> None:
    assert parse(b"shipit apps") == parse(b"apps") == CliRequest(("apps",))


def test_quotes_hold_a_value_together() -> None:
    assert parse(b"""config:set blog A='x; y' "B=$HOME \\"q\\"" C=a\\ b ''""") == CliRequest(
        ("config:set", "blog", "A=x; y", 'B=$HOME "q"', "C=a b", "")
    )


@pytest.mark.parametrize(
    "typed",
    [
        'J={"a":1,"b":"two"}',
        "B=a\\nb",
        'J="two"',
        'J="two words"',
        'L=["a","b"]',
        "U=http://a/?b=1&c=2",
        "P=C:\\new",
        'K="a"b',
    ],
)
def test_a_value_that_ssh_has_laid_bare_is_refused_with_the_way_that_works(typed: str) -> None:
    """`ssh HOST config:set blog 'J={"a":1}'`: the client's shell has taken the quotes off, and ssh joins the words."""
    with pytest.raises(Rejected) as refused:
        parse(f"config:set blog {typed}".encode())
    assert "NAME - < FILE" in refused.value.hint


def test_a_command_of_run_that_ssh_has_laid_bare_is_answered_with_one_of_run() -> None:
    for typed in ("run blog python -c print(1)", "shipit run blog sh -c a;b"):
        with pytest.raises(Rejected, match="no shell here") as refused:
            split(typed)
        assert "run APP sh -c 'echo one; echo two'" in refused.value.hint and "config:set" not in refused.value.hint
    assert parse(f"config:set blog {shlex.quote(typed)}".encode()) == CliRequest(("config:set", "blog", typed))


WORDS = st.lists(
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20), min_size=1, max_size=8
)


@given(WORDS)
def test_what_a_client_quotes_arrives_as_it_was(words: list[str]) -> None:
    assert split(shlex.join(words)) == words


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(raw: bytes) -> None:
    with contextlib.suppress(Rejected):
        parse(raw)


@given(st.text(max_size=60))
def test_no_text_around_a_push_makes_another_push(text: str) -> None:
    try:
        request = parse(f"git-receive-pack '{text}'".encode(errors="replace"))
    except Rejected:
        return
    assert isinstance(request, GitRequest) and text in (
        request.app,
        f"/{request.app}",
        f"{request.app}.git",
        f"/{request.app}.git",
    )


def pushed(*given: str) -> Options:
    env = {f"GIT_PUSH_OPTION_{i}": text for i, text in enumerate(given)}
    return options({"GIT_PUSH_OPTION_COUNT": str(len(given)), **env})


def test_push_options_are_parsed_or_refused() -> None:
    assert pushed() == options({}) == Options()
    assert pushed("force", "message=x" + "y" * 300, "no-deploy") == Options(False, True, "x" + "y" * 199)
    for bad in ("forced", "", "message", "FORCE", "message=a\nb", "message=\x1b[31m", "no-deploy "):
        with pytest.raises(Rejected):
            pushed(bad)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["-c", f"{COMMAND} ann SHA256:x"], ["ann", "SHA256:x"]),
        (["ann", "SHA256:x"], ["ann", "SHA256:x"]),
        ([], []),
        (["-c"], []),
        (["-c", "id"], []),
        (["-c", COMMAND], []),
        (["-c", f"{COMMAND} ann"], []),
        (["-c", f"{COMMAND} ann SHA256:x; id"], []),
        (["-c", f"{COMMAND}  ann SHA256:x"], []),
        (["-c", f"{COMMAND}\nann SHA256:x"], []),
        (["-c", f"x{COMMAND} ann SHA256:x"], []),
        (["-l", "-c", f"{COMMAND} ann SHA256:x"], []),
        (["-i"], []),
    ],
)
def test_the_shell_of_the_account_runs_what_a_keys_line_says_and_nothing_else(words: list[str], key: list[str]) -> None:
    assert key_of(words) == key
