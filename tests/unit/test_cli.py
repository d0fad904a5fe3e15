from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.caller import Caller, Role
from receiver.cli import auth, config, out
from receiver.cli.config import parse_pairs
from receiver.cli.main import COMMANDS, run
from receiver.cli.ps import parse_count
from receiver.errors import Rejected
from receiver.gate.keys import LOCAL_ADMIN
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Https, Origin, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.proxy import passwords
from receiver.sources.pull.wish import Follow, Place

BLOG, SHOP = AppName("blog"), AppName("shop")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.home.mkdir(parents=True)
    for app in (BLOG, SHOP):
        ledger = Ledger(layout.app(app))
        ledger.paths.releases.mkdir(parents=True)
        ledger.paths.slugs.mkdir()
        ledger.create()
    return layout


@pytest.fixture
def stdin() -> Iterator[Callable[[bytes], None]]:
    """Gives what comes on standard input from now on."""
    kept = os.dup(0)

    def give(data: bytes) -> None:
        given = os.memfd_create("given")
        os.write(given, data)
        os.lseek(given, 0, os.SEEK_SET)
        os.dup2(given, 0)
        os.close(given)

    yield give
    os.dup2(kept, 0)
    os.close(kept)


@pytest.mark.parametrize("role", [Role.VIEW, Role.DEPLOY])
def test_every_command_above_a_role_is_refused_to_it(
    role: Role, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (_, _, needed) in COMMANDS.items():
        if not role.covers(needed):
            assert run([name, "blog"], Caller("eve", "", role), layout) == 77, name
            assert "role" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    ["git:auth blog example.org ann -", "git:allow-host blog -", "git:allow-signers blog -",
     "registry:login blog ghcr.io ann"],
)  # fmt: skip
def test_what_comes_on_standard_input_and_is_no_utf_8_is_refused(
    words: str, layout: Layout, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    layout.app(AppName("blog")).repo.mkdir()
    stdin(b"example.org ssh-ed25519 AAAA \xff\n")
    assert run(words.split(), LOCAL_ADMIN, layout) == 2
    assert "Standard input is not UTF-8." in capsys.readouterr().err


def test_a_scale_before_the_first_push_is_kept_for_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class NoAgent:
        connect = classmethod(lambda cls, socket: cls())
        reopen = close = lambda self: None

    monkeypatch.setattr("receiver.story.submit.Agent", NoAgent)
    assert run(["ps:scale", "blog", "web=2", "worker=3"], LOCAL_ADMIN, layout) == 0
    assert "first push" in capsys.readouterr().out
    assert Ledger(layout.app(BLOG)).state().formation == (("web", 2), ("worker", 3))


def test_a_certificate_that_is_refused_switches_no_https_on(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, stdin: Callable[[bytes], None]
) -> None:
    given: list[bytes] = []

    class Refuses:
        connect = classmethod(lambda cls, socket: nullcontext(cls()))

        def add_certificate(self, app: AppName, source: int) -> None:
            given.append(os.read(source, 100))
            raise Rejected("There is no certificate in it.")

    ledger = Ledger(layout.app(BLOG))
    monkeypatch.setattr("receiver.root.client.Agent", Refuses)
    monkeypatch.setattr("receiver.cli.certs.become_shipit", lambda: None)
    for before in (Https.OFF, Https.ON):
        ledger.change_state(lambda state, https=before: replace(state, https=https))
        stdin(b"nonsense")
        assert run(["certs:add", "blog"], LOCAL_ADMIN, layout) == 2
        assert ledger.state().https is before
    assert given == [b"nonsense"] * 2


def test_another_repository_to_follow_takes_no_check_away(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.story.pull.Pull.look", lambda self: 0)
    monkeypatch.setattr("receiver.cli.pull.timed", lambda ctx, app, follow: None)
    place = Place(layout.app(BLOG))
    place.repo.mkdir()
    wished = ["--verify-signatures", "--every", "5m", "--wait-for", "./may-go", "--wait-most", "2h"]
    assert run(["git:sync", "blog", "https://a.example/x", "main", *wished], LOCAL_ADMIN, layout) == 0
    place.save(replace(place.read() or Follow(""), seen="0" * 40, commit="0" * 40, failing=1.0, times=3))
    assert run(["git:sync", "blog", "https://b.example/x", "main"], LOCAL_ADMIN, layout) == 0
    assert place.read() == Follow(
        "https://b.example/x", ref="main", every=300, signed=True, wait_for="./may-go", wait_most=7200
    )


def test_two_who_set_passwords_at_once_are_both_heard(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, stdin: Callable[[bytes], None]
) -> None:
    class NoAgent:
        connect = classmethod(lambda cls, socket: nullcontext(cls()))

        def proxy(self, app: AppName) -> None:
            pass

    @contextmanager
    def after_another(ledger: Ledger, *words: object, **more: object) -> Iterator[None]:
        passwords.save(ledger, {**passwords.visitors(ledger), "bob": "$6$x"})
        yield

    monkeypatch.setattr("receiver.root.client.Agent", NoAgent)
    monkeypatch.setattr(passwords, "proxy_group", os.getgid)
    monkeypatch.setattr(auth, "queued", after_another)
    stdin(b"s3cret\n")
    assert run(["auth:set", "blog", "alice", "-"], LOCAL_ADMIN, layout) == 0
    assert set(passwords.visitors(Ledger(layout.app(BLOG)))) == {"alice", "bob"}
    assert run(["auth:remove", "blog", "alice"], LOCAL_ADMIN, layout) == 0
    assert set(passwords.visitors(Ledger(layout.app(BLOG)))) == {"bob"}


def test_a_key_for_one_app_cannot_even_look_at_another(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    eve = Caller("eve", "", Role.ADMIN, (SHOP,))
    for name in ("status", "releases", "config:show", "logs", "ps", "domains:list", "apps:lock", "apps:exists"):
        assert run([name, "blog"], eve, layout) == 77, name
    assert run(["apps:list", "--format", "json"], eve, layout) == 0
    assert [row["app"] for row in json.loads(capsys.readouterr().out)] == ["shop"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nosuch"], 2, "no command"),
        (["rolback", "blog"], 2, "shipit rollback"),
        (["status", "../x"], 2, "not an app name"),
        (["status", "gone"], 2, "no app"),
        (["releases:info", "blog", "v0"], 2, "not a release"),
        (["releases:info", "blog", "v9"], 2, "no release v9"),
        (["ps:scale", "blog", "web=101"], 2, "TYPE=COUNT"),
        (["config:set", "blog", "A"], 2, "NAME=value"),
        (["config:set", "blog", "A=one", "two"], 2, "\"config:set APP 'NAME=a value'\""),
        (["config:set", "blog", "SHIPIT_APP=x"], 2, "set by shipit"),
        (["domains:add", "blog", "a b"], 2, "not a domain"),
        (["deploy", "blog", "--pypi", "hello==1", "--sha256", "0" * 64], 2, "--sha256 is for"),
        (["git:set", "blog", "deploy-branch", "a..b"], 2, "not a branch"),
        (["git:set", "blog", "force-push", "maybe"], 2, "on or off"),
        (["status"], 2, "Missing argument"),
        (["deploy", "blog", "-", "--system"], 2, "installs nothing into the system"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_clear_error_and_changes_nothing(
    words: list[str], code: int, said: str, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in layout.apps.rglob("*.json")}
    assert run(words, LOCAL_ADMIN, layout) == code
    text = capsys.readouterr()
    assert said in text.err and "Traceback" not in text.err
    assert {path: path.read_bytes() for path in layout.apps.rglob("*.json")} == before


def test_the_list_of_releases_says_what_serves(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(layout.app(BLOG))
    for number in (1, 2):
        release = ledger.open_release(
            Change.DEPLOY, "alice", builds=True, origin=Origin("git", "a" * 40, title=f"change {number}")
        )
        ledger.paths.release(number).slug.mkdir()
        ledger.commit(release)
        ledger.finish(release, Status.LIVE)
    ledger.finish(ledger.open_release(Change.DEPLOY, "bob", builds=True), Status.FAILED, "no")
    assert run(["releases", "blog", "--format", "json"], LOCAL_ADMIN, layout) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["release"], row["status"]) for row in rows] == [("v3", "failed"), ("v2", "live"), ("v1", "superseded")]


def test_what_serves_is_listed_however_many_failed_since(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(layout.app(BLOG))
    release = ledger.open_release(Change.DEPLOY, "alice", builds=True)
    ledger.commit(release)
    ledger.finish(release, Status.LIVE)
    for _ in range(4):
        ledger.finish(ledger.open_release(Change.DEPLOY, "bob", builds=True), Status.FAILED, "no")
    assert run(["releases", "blog", "-n", "2", "--format", "json"], LOCAL_ADMIN, layout) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["release"], row["status"]) for row in rows] == [("v5", "failed"), ("v4", "failed"), ("v1", "live")]


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(out, "terminal_width", lambda: 40)
    monkeypatch.setenv("NO_COLOR", "1")
    out.table([{"a": "v1", "b": "x" * 200}], {"a": "A", "b": "B"}, empty="")
    assert max(map(len, screen.getvalue().splitlines())) <= 40


def test_no_colour_goes_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    out.table([{"a": "live"}], {"a": "A"}, empty="")
    assert "\x1b" not in capsys.readouterr().out


def test_a_value_on_standard_input_keeps_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "read_input", lambda most, hint: b"-----BEGIN\nabc\n-----END\n")
    assert parse_pairs(("KEY", "-")) == {"KEY": "-----BEGIN\nabc\n-----END\n"}
    monkeypatch.setattr(config, "read_input", lambda most, hint: b"one line\n")
    assert parse_pairs(("KEY", "-")) == {"KEY": "one line"}


def test_values_may_hold_anything_but_nul() -> None:
    assert parse_pairs(("A==", "B=a=b", "C= x ")) == {"A": "=", "B": "a=b", "C": " x "}
    with pytest.raises(Rejected):
        parse_pairs(("A=\0",))


def test_counts_are_small_whole_numbers() -> None:
    assert parse_count("web=0") == ("web", 0)
    for bad in ("web", "web=", "web=-1", "web=1.5", "web=١", "We=1", "web=101"):
        with pytest.raises(Rejected):
            parse_count(bad)
