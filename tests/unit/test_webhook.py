"""Webhooks: signatures as the forges document them, and an HTTP request as nginx passes it on."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from receiver.cli import pull
from receiver.gate import webhook
from receiver.ledger.ledger import Ledger
from receiver.names import AppName
from receiver.paths import Layout
from receiver.sources.pull.hook import Secret, app_of, is_signed
from receiver.sources.pull.wish import Place
from receiver.story.pull import Pull

# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
GITHUB = Secret("a" * 32, "It's a Secret to Everybody")
BODY, DIGEST = b"Hello, World!", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@pytest.mark.parametrize(
    ("headers", "well"),
    [
        ({"x-hub-signature-256": f"sha256={DIGEST}"}, True),
        ({"x-gitea-signature": DIGEST}, True),
        ({"x-forgejo-signature": DIGEST}, True),
        ({"x-gitlab-token": GITHUB.key}, True),
        ({}, False),
        ({"x-hub-signature-256": ""}, False),
        ({"x-hub-signature-256": f"sha1={DIGEST}"}, False),
        ({"x-hub-signature-256": f"sha256={DIGEST[:-1]}0"}, False),
        ({"x-hub-signature-256": "sha256=é"}, False),
        ({"x-gitlab-token": ""}, False),
        ({"x-gitlab-token": DIGEST}, False),
    ],
)
def test_only_who_knows_the_secret_is_believed(headers: dict[str, str], well: bool) -> None:
    assert is_signed(GITHUB, headers, BODY) is well
    assert not is_signed(GITHUB, {k: v for k, v in headers.items() if k != "x-gitlab-token"}, BODY + b"!")


@pytest.mark.parametrize(
    "path",
    ["/", "", "/.shipit/hook/", "/.shipit/hook/blog", "/.shipit/hook/../etc/x", "/.shipit/hook/Blog/x", "/x/blog/y"],
)
def test_an_address_names_an_app_or_nothing(path: str) -> None:
    assert app_of(path) is None
    assert app_of("/.shipit/hook/blog/" + "a" * 32) == ("blog", "a" * 32)


def answer(layout: Layout, raw: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=webhook.serve, args=(theirs, layout))
        thread.start()
        ours.sendall(raw)
        ours.shutdown(socket.SHUT_WR)
        found = b"".join(iter(lambda: ours.recv(65536), b""))
        thread.join(10)
    return found


@pytest.mark.parametrize("at_once", [b"", b"POST /.shipit/hook/blog/x HTTP/1.0\r\nX: "])
def test_who_asks_slowly_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bytes) -> None:
    monkeypatch.setattr(webhook, "LONGEST", 0.5)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=webhook.serve, args=(theirs, Layout(tmp_path)))
        thread.start()
        ours.sendall(at_once)
        for _ in range(600):
            thread.join(0.05)
            if not thread.is_alive():
                return
            ours.sendall(b"a")
    pytest.fail("it waits")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", b""),
        (b"GET / HTTP/1.0\r\n\r\n", b"501"),
        (b"\0\xff\r\n\r\n", b"400"),
        (b"POST " + b"/" * 70000 + b" HTTP/1.0\r\n\r\n", b"414"),
        (b"POST / HTTP/1.0\r\n\r\n", b"404"),
        (b"POST /.shipit/hook/none/" + b"a" * 32 + b" HTTP/1.0\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /.shipit/hook/blog/" + b"b" * 32 + b" HTTP/1.0\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /.shipit/hook/blog/" + b"a" * 32 + b" HTTP/1.0\r\n\r\n", b"413"),
        (b"POST /.shipit/hook/blog/" + b"a" * 32 + b" HTTP/1.0\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST /.shipit/hook/blog/" + b"a" * 32 + b" HTTP/1.0\r\nContent-Length: -1\r\n\r\n", b"413"),
        (b"POST /.shipit/hook/blog/" + b"a" * 32 + b" HTTP/1.0\r\nContent-Length: 13\r\n\r\nHello, World!", b"403"),
        (b"POST /.shipit/hook/blog/" + b"a" * 32 + b" HTTP/1.0\r\nContent-Length: 13\r\n\r\nHello", b"403"),
    ],
)
def test_what_is_no_hook_is_answered_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, status: bytes
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(webhook, "by_itself", lambda layout, app, *_, **__: looked.append(app))
    layout = Layout(tmp_path)
    place = Place(Ledger(layout.app(AppName("blog"))).paths)
    place.dir.mkdir(parents=True)
    place.write(place.hook, f"{'a' * 32} secret\n")
    found = answer(layout, raw)
    assert status in found.split(b"\r\n")[0] and b"Traceback" not in found and not looked
    good = (
        b"POST /.shipit/hook/blog/" + b"a" * 32 + b" HTTP/1.0\r\nContent-Length: 2\r\nX-Gitlab-Token: secret\r\n\r\n{}"
    )
    assert b" 202 " in answer(layout, good) and looked == ["blog"]


@pytest.mark.parametrize("by", ["timer", "webhook"])
def test_what_another_repository_sends_gets_no_more_memory_than_a_push(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, limits, looked = Layout(tmp_path), list[int](), list[tuple[str, bool, list[int]]]()
    ledger = Ledger(layout.app(AppName("blog")))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    layout.etc.mkdir(parents=True)
    layout.settings.write_text("push_memory: 300\n")

    def look(self: Pull, *, waits: bool) -> int:
        looked.append((self.caller.name, waits, [*limits]))
        return 1

    monkeypatch.setattr(Pull, "look", look)
    monkeypatch.setattr(pull, "limit_memory", limits.append)
    monkeypatch.setattr(pull, "Layout", lambda: layout)
    if by == "timer":
        assert pull.main("blog") == 0
        assert looked == [("git:sync", False, [300])]
        return
    place = Place(ledger.paths)
    place.dir.mkdir(parents=True)
    place.write(place.hook, f"{'a' * 32} secret\n")
    answer(
        layout,
        b"POST /.shipit/hook/blog/" + b"a" * 32 + b" HTTP/1.0\r\nContent-Length: 2\r\nX-Gitlab-Token: secret\r\n\r\n{}",
    )
    assert looked == [("webhook", True, [300])]
