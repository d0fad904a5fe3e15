"""A login handed to the gateway that is up: real processes, the real socket; what the gateway does is the test's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from receiver.gate import ask, gateway, listen
from receiver.paths import Layout
from receiver.system.listener import fork_for_each

ASKER = "import sys; from receiver.gate import ask; ask.GATEWAY = sys.argv[1]; print(ask.ask(['ann', 'SHA256:x']), file=sys.stderr)"


def stand_in(layout: Layout, argv: list[str], hooks: Path, asker: int) -> int:
    """Does what the command says, as the gateway would: on its standard input, output and error."""
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    try:
        print(f"{argv[0]} asks for {len(command)}", flush=True)
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if command == "wait":
            time.sleep(30)
    except SystemExit as ended:
        Path(os.environ["NOTE"]).write_text(f"ended {ended.code}")
        raise
    print(sys.stdin.read().upper(), end="")
    return 7


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The socket of a gateway that is up."""
    path = tmp_path / "gateway.sock"
    monkeypatch.setattr(gateway, "serve", stand_in)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                fork_for_each(server, listen.serve, ahead=iter(()))
            os._exit(1)
    yield path
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def login(path: Path, command: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ASKER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"SSH_ORIGINAL_COMMAND": command, "PYTHONPATH": ":".join(sys.path), **environ},
    )


@pytest.mark.parametrize("size", [10, 100_000])
def test_the_gateway_speaks_on_the_logins_own_channels_and_its_code_is_the_logins(up: Path, size: int) -> None:
    out, err = login(up, "x" * size).communicate("hello\n", timeout=20)
    assert out == f"ann asks for {size}\nHELLO\n"
    assert err == "7\n"


def test_where_no_gateway_is_up_nothing_was_done_and_that_is_told(tmp_path: Path) -> None:
    assert login(tmp_path / "none", "").communicate(timeout=20)[1] == "None\n"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        deaf.listen()
        asking = login(tmp_path / "deaf", "")
        deaf.accept()[0].close()
        assert asking.communicate(timeout=20)[1] == "None\n"


def test_a_gateway_that_is_quicker_than_who_asks_serves_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The processor may leave who asks between any two calls, for as long as the gateway takes to answer and end."""

    class Slow(socket.socket):
        def sendmsg(self, *given: Any) -> int:
            sent = super().sendmsg(*given)
            with server.accept()[0] as gateway:
                gateway.recv(sent)
                gateway.sendall(ask.TAKEN + bytes([7]))
            return sent

    monkeypatch.setattr(ask, "socket", Slow)
    monkeypatch.setattr(ask, "GATEWAY", str(tmp_path / "gateway.sock"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(ask.GATEWAY)
        server.listen()
        assert ask.ask(["ann", "SHA256:x"]) == 7


def test_who_is_interrupted_before_a_gateway_is_up_sees_no_traceback(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as starting:
        starting.bind(str(tmp_path / "starting"))
        starting.listen()
        asking = login(tmp_path / "starting", "")
        with starting.accept()[0] as connection:
            assert connection.recv(1)
            time.sleep(0.2)
            asking.send_signal(signal.SIGINT)
            assert asking.communicate(timeout=20)[1] == "130\n"


def test_a_gateway_that_is_killed_is_told_to_the_user(up: Path) -> None:
    err = login(up, "die").communicate(timeout=20)[1]
    assert err == ask.LOST + "70\n"


def test_when_who_asked_is_gone_its_gateway_ends(up: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    asking = login(up, "wait", NOTE=str(note))
    assert asking.stdout
    assert asking.stdout.readline()
    asking.kill()
    # Until the gateway, which has the same pipe, is gone as well.
    assert asking.stdout.read() == ""
    asking.wait()
    assert note.read_text() == "ended 129"


def test_when_who_asked_is_gone_before_it_has_heard_of_a_gateway_that_ends_too(up: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    said, says = os.pipe()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(up))
        body = b"\0".join([b"ann SHA256:x", b"SSH_ORIGINAL_COMMAND=wait", b"NOTE=" + os.fsencode(note)])
        socket.send_fds(asking, [len(body).to_bytes(4, "big") + body], [says] * 3)
        os.close(says)
        assert os.read(said, 3) == b"ann"
    while os.read(said, 4096):
        continue
    os.close(said)
    assert note.read_text() == "ended 129"


def test_what_is_interrupted_on_a_terminal_is_interrupted_in_the_gateway(up: Path) -> None:
    asking = login(up, "wait", NOTE="/dev/null")
    assert asking.stdout
    assert asking.stdout.readline()
    asking.send_signal(signal.SIGINT)
    assert asking.communicate(timeout=20)[1] == "130\n"


@pytest.mark.parametrize("words", [b"", b"\0\0\0\x05ann", b"\xff\xff\xff\xffann"])
def test_what_is_not_a_login_is_not_taken(up: Path, words: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(up))
        stranger.sendall(words)
        stranger.shutdown(socket.SHUT_WR)
        stranger.settimeout(10)
        assert stranger.recv(1) == b""
