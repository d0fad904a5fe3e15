"""Who answers slowly, byte by byte, is left when the time for all of it is over."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from receiver.errors import Failure, HostFault
from receiver.names import AppName
from receiver.ops.notify import ways
from receiver.ops.notify.message import Message
from receiver.paths import Layout
from receiver.sources import archive, download, registry
from receiver.sources.download import downloaded
from receiver.sources.image_parts import Parts
from receiver.sources.pull import status
from receiver.sources.registry import Reference, Registry
from receiver.system import transfer
from receiver.system.ends import Ends, arriving
from receiver.system.transfer import addresses, answered

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

RECORD = b"\x16\x03\x03\x40\x00"  # TLS says: 16384 bytes of a handshake follow


class Dripping:
    """Sends `at_once`, and then one byte in a while for as long as it is listened to: each is soon enough."""

    def __init__(self, at_once: bytes) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.at_once, self.over = at_once, threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.getsockname()[1]}"

    def serve(self) -> None:
        connection = self.server.accept()[0]
        with connection:
            connection.recv(65536)
            connection.sendall(self.at_once)
            # Long enough for a test that does not end to be seen to do so.
            for _ in range(600):
                if self.over.wait(0.05):
                    return
                try:
                    connection.sendall(b"a")
                except OSError:
                    return


@pytest.fixture
def dripping() -> Iterator[Callable[[bytes], Dripping]]:
    made: list[Dripping] = []

    def make(at_once: bytes) -> Dripping:
        made.append(Dripping(at_once))
        return made[-1]

    yield make
    for one in made:
        one.over.set()
        one.server.close()


@pytest.mark.parametrize("at_once", [b"", b"HTTP/1.1 200 OK\r\nX: ", HEAD, b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_download_that_drips_has_an_end(
    dripping: Callable[[bytes], Dripping], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bytes
) -> None:
    monkeypatch.setattr(download, "LONGEST", 0.6)
    url = f"http://{dripping(at_once).host}/x.tar"
    with pytest.raises(HostFault, match="took longer"), downloaded(url, "0" * 64, tmp_path, 10**6):
        pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("at_once", [b"", HEAD])
def test_a_registry_whose_description_drips_is_left(
    dripping: Callable[[bytes], Dripping], monkeypatch: pytest.MonkeyPatch, at_once: bytes
) -> None:
    monkeypatch.setattr(registry, "SMALL", 0.6)
    with pytest.raises(HostFault, match=r"took (longer|too long)"):
        Registry(Reference(dripping(at_once).host, "team/shop", "7"), None).manifest()


def test_a_registry_whose_layer_drips_is_left(
    dripping: Callable[[bytes], Dripping], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "LONGEST", 0.6)
    asked = Registry(Reference(dripping(HEAD).host, "team/shop", "7"), None)
    with pytest.raises(HostFault, match="took too long"):
        list(asked.blob("sha256:" + "0" * 64, 100000))


@pytest.mark.parametrize("at_once", [b"", HEAD])
def test_ci_that_says_what_it_thinks_of_a_commit_in_drops_is_left(
    dripping: Callable[[bytes], Dripping], monkeypatch: pytest.MonkeyPatch, at_once: bytes
) -> None:
    monkeypatch.setattr(status, "LONGEST", 0.6)
    monkeypatch.setattr(status, "checked", lambda url, http: urlsplit(url))
    monkeypatch.setattr(status, "_password", lambda place, host: "")
    with pytest.raises(Failure, match="took longer"):
        status.asked(None, f"http://{dripping(at_once).host}/{{commit}}", "0" * 40)  # type: ignore[arg-type]


def test_a_webhook_that_answers_in_drops_is_left(
    dripping: Callable[[bytes], Dripping], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "REQUEST", 0.6)
    monkeypatch.setattr(ways, "PAUSES", ())
    message = Message("1f", 0, "live", "blog", "v1", "deploy", "ann", "")
    with pytest.raises(HostFault, match="took longer"):
        ways.Webhook(f"http://{dripping(b'HTTP/1.1 200 OK').host}/", free=True).send(message)


def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(transfer.socket, "getaddrinfo", lambda *_, **__: never.wait(60))
    with pytest.raises(TimeoutError, match=r"DNS says nothing of slow\.example"):
        addresses("slow.example", 80, Ends(0.3, 60))
    with pytest.raises(TimeoutError):
        answered(urlsplit("http://slow.example/"), Ends(60, 0.3), {})
    never.set()


def test_a_greeting_of_tls_that_drips_has_an_end(dripping: Callable[[bytes], Dripping]) -> None:
    with pytest.raises(TimeoutError, match="took longer"):
        answered(urlsplit(f"https://{dripping(RECORD).host}/"), Ends(0.6, 60), {})


def test_what_comes_on_standard_input_in_drops_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    over = threading.Event()
    parts = Layout(tmp_path / "server").app(AppName("blog"))

    def drip() -> None:
        for _ in range(600):
            if over.wait(0.05):
                return
            os.write(writer, b"a")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        with pytest.raises(TimeoutError, match="took longer than"):
            list(arriving(reader, Ends(0.4, 60)))
        monkeypatch.setattr(archive, "LONGEST", 0.4)
        with pytest.raises(Failure, match="took longer than"), archive.spooled(reader, tmp_path, 10**6):
            pass
        parts.repo.mkdir(parents=True)
        with pytest.raises(Failure, match="took longer than"):
            Parts(parts).add("sha256:" + "0" * 64, reader, 10**6)
    finally:
        over.set()
        thread.join()
        os.close(writer)
        os.close(reader)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
