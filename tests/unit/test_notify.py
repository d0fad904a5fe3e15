"""Who is told of a release: what a webhook gets, where it may be, and that nobody waits for one that is not well."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from trees import FakeTree

from receiver.errors import Failure, HostFault, Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Origin, Release
from receiver.ops import all as ops
from receiver.ops.notify import chosen, ways
from receiver.ops.notify.message import Message, mail, message
from receiver.ops.notify.section import Notify
from receiver.ops.notify.ways import Apprise, Command, Email, Program, Webhook, address_of, is_public, send_all
from receiver.records import plain
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings
from receiver.system import transfer
from receiver.system.ends import Ends

URL = "http://blog.example.org"


class Listener(HTTPServer):
    """Keeps each request, and answers with the statuses given to it, the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = [200]
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?a=1"


class Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setattr(ways, "PAUSES", (0.0, 0.0))
    with Listener() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def release(ledger: Ledger) -> Release:
    origin = Origin("git", "a" * 40, title="Add\na page\x1b[31m", author="Ann")
    return replace(ledger.open_release(Change.DEPLOY, "alice"), origin=origin, reason="The build failed.")


@pytest.fixture
def told(release: Release) -> Message:
    return message("failed", release, URL, id="1f", time=1700000000.5)


def test_a_webhook_gets_the_message_as_json_signed_over_every_byte(listener: Listener, told: Message) -> None:
    assert Webhook(listener.url, "s3cret", free=True).send(told) == "it answered 200"
    ((path, headers, body),) = listener.got
    assert path == "/hook?a=1" and headers["X-Shipit-Event"] == "failed"
    assert headers["X-Shipit-Signature-256"] == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    said = json.loads(body)
    assert (said["event"], said["app"], said["release"], said["by"]) == ("failed", "blog", "v1", "alice")
    assert (said["reason"], said["commit"], said["url"]) == ("The build failed.", "a" * 40, URL)
    assert said["text"] == "blog v1 failed (deploy by alice) Add a page [31m: The build failed."
    assert (said["id"], said["time"]) == ("1f", 1700000000)


def test_an_answer_that_may_change_is_asked_for_three_times_and_no_other_one(listener: Listener, told: Message) -> None:
    listener.statuses = [503, 429, 204]
    assert Webhook(listener.url, free=True).send(told) == "it answered 204"
    for statuses, asked in ([503], 3), ([404], 1), ([302], 1):
        listener.got.clear()
        listener.statuses = statuses
        with pytest.raises(HostFault, match=f"it answered {statuses[0]}"):
            Webhook(listener.url, free=True).send(told)
        assert [path for path, _, _ in listener.got] == ["/hook?a=1"] * asked, "a redirect is not followed"


def test_a_webhook_of_an_app_does_not_reach_what_only_this_machine_reaches(listener: Listener, told: Message) -> None:
    port = listener.server_port
    for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.1.2.3", "[::ffff:127.0.0.1]", "0.0.0.0"):
        with pytest.raises(Rejected, match="no public address"):
            Webhook(f"http://{host}:{port}/").send(told)
    assert listener.got == []
    Webhook(listener.url, allowed=["127.0.0.1"]).send(told)
    assert len(listener.got) == 1, "an administrator has allowed it"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("100.64.0.1", False), ("192.168.1.1", False),
        ("fd00::1", False), ("fe80::1%eth0", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
        ("224.0.0.1", False), ("ff02::1", False), ("::", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_name_is_resolved_once_so_that_it_cannot_lead_elsewhere_the_second_time(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, told: Message
) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1" if len(asked) > 1 else "93.184.216.34", port))]

    monkeypatch.setattr(transfer.socket, "getaddrinfo", resolve)
    assert address_of("hook.example.org", 80, free=False, ends=Ends(60, 60)) == ("93.184.216.34", 80)
    connected: list[Any] = []
    monkeypatch.setattr(transfer.socket, "create_connection", lambda address, *rest: connected.append(address) or 1 / 0)
    asked.clear()
    with pytest.raises(ZeroDivisionError):
        Webhook("http://hook.example.org/").send(told)
    assert connected == [("93.184.216.34", 80)] and asked == ["hook.example.org"]


def test_a_letter_has_one_subject_whatever_a_commit_is_called(release: Release) -> None:
    named = replace(release, origin=Origin("git", "a" * 40, title="x\r\nBcc: all@example.org"), reason="a\u2028b")
    letter = mail(message("failed", named, URL, id="1f", time=1), ("a@example.org",), "shipit@host").decode()
    assert letter.count("Subject:") == 1 and "\nBcc:" not in letter.split("\n\n")[0]


def test_sendmail_gets_the_letter_where_no_mail_server_listens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: Message
) -> None:
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f'#!/bin/sh\n{{ echo "$@"; cat; }} > {tmp_path}/sent\n')
    sendmail.chmod(0o755)
    monkeypatch.setattr(ways, "SENDMAIL", sendmail)
    monkeypatch.setattr(ways, "SMTP", ("127.0.0.1", 1))
    assert Email(("ops@example.org",)).send(told) == "sendmail took it"
    first, *letter = (tmp_path / "sent").read_text().splitlines()
    assert first.endswith("-- ops@example.org") and "Subject: blog v1 failed" in "\n".join(letter)


def test_every_way_has_its_turn_whatever_becomes_of_the_others(told: Message, tmp_path: Path) -> None:
    ok = Program(("/bin/sh", "-c", f"cat > {tmp_path}/got"))
    results = send_all([Program(("/bin/false",)), ok, chosen.Broken("webhook", Rejected("no"))], told)
    assert [(name, bool(wrong)) for name, _, wrong in results] == [
        ("command", True), ("command", False), ("webhook", True),
    ] or [(name, bool(wrong)) for name, _, wrong in results] == [
        ("command", False), ("command", True), ("webhook", True),
    ]  # fmt: skip
    assert json.loads((tmp_path / "got").read_bytes())["event"] == "failed"


def manifest(text: str) -> Any:
    return read_manifest(FakeTree({"Procfile": "web: x\n", "shipit.yml": text}), ops.sections()).sections


def test_its_section_names_config_vars_and_no_secret() -> None:
    found = manifest("notify: {on: [failed], webhook: HOOK, secret: HOOK_SECRET, email: [a@example.org]}")
    assert found == {"notify": plain(Notify(("failed",), "HOOK", "HOOK_SECRET", "", ("a@example.org",)))}
    with pytest.raises(Rejected) as refused:
        manifest("notify:\n  webhook: https://hooks.example.org/T0/secret\n  email: ['-oQ/tmp@x']\n")
    assert "shipit.yml:2" in refused.value.message and "T0/secret" not in refused.value.message
    assert "shipit config:set APP NOTIFY_WEBHOOK - < FILE" in refused.value.hint
    assert "is no e-mail address" in refused.value.message
    with pytest.raises(Rejected, match="there is none"):
        manifest("notify: {secret: HOOK_SECRET}")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[ways.Way]]:
    monkeypatch.setattr(chosen, "_config", lambda ledger, release: {"HOOK": "https://hooks.example.org/x\n"})
    return chosen.ways_of


def test_the_ways_are_those_of_the_server_and_of_the_app_for_the_events_that_each_wants(
    ledger: Ledger, release: Release, known: Callable[..., list[ways.Way]], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    settings = Settings(
        notify={"on": "failed crashed", "webhook": "http://10.0.0.5/x", "secret": f"{tmp_path}/secret",
                "command": "/usr/local/bin/tell 'two words'", "email": "a@b.org c@d.org", "apprise": "/etc/a.conf"}
    )  # fmt: skip
    assert known(ledger, release, settings, "failed") == [
        Webhook("http://10.0.0.5/x", "s3cret", free=True), Program(("/usr/local/bin/tell", "two words")),
        Email(("a@b.org", "c@d.org")), Apprise(Path("/etc/a.conf")),
    ]  # fmt: skip
    assert known(ledger, release, settings, "live") == []
    section = plain(Notify(("live",), "HOOK", "", "bin/tell", (), "CHAT"))
    release = replace(release, capabilities={"notify": section})
    webhook, command, apprise = known(ledger, release, Settings(notify={"allow": "ci.intern"}), "live")
    assert webhook == Webhook("https://hooks.example.org/x", allowed=["ci.intern"])
    assert command == Command("bin/tell", ledger) and apprise.name == "apprise"
    assert known(ledger, release, Settings(), "failed") == []


def test_what_is_not_set_or_wrong_is_told_by_the_way_that_needs_it(
    ledger: Ledger, release: Release, known: Callable[..., list[ways.Way]], told: Message
) -> None:
    release = replace(release, capabilities={"notify": plain(Notify(("live",), "GONE"))})
    (way,) = known(ledger, release, Settings())
    with pytest.raises(Failure, match="The config var GONE is not set"):
        way.send(told)
    (way,) = known(ledger, replace(release, capabilities={}), Settings(notify={"webhok": "x"}))
    with pytest.raises(Failure, match="unknown key 'webhok'"):
        way.send(told)


def test_a_webhook_whose_host_is_no_name_fails_with_a_sentence(told: Message) -> None:
    for host in ("a" * 70 + ".example", "a..example"):
        with pytest.raises(HostFault, match="did not take it"):
            Webhook(f"http://{host}/", free=True).send(told)
