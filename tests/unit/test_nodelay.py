"""nodelay: the options of another process's listening sockets, and what is not sshd's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.system import nodelay

LISTENER = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
plain = socket.socket()
local = socket.socket(socket.AF_UNIX)
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
print([one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in (listening, plain)], flush=True)
"""

RESTLESS = """
import os, socket
listening = socket.create_server(("127.0.0.1", 0))
print(flush=True)
while True:
    held = [socket.socketpair(), os.pipe()]
    held[0][0].close(), held[0][1].close(), os.close(held[1][0]), os.close(held[1][1])
"""


def test_what_a_process_accepts_has_the_option_that_was_set_from_outside_and_nothing_else_has() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        port = int(other.stdout.readline())
        for listening in nodelay.listening_sockets(other.pid):
            assert listening.getsockname()[1] == port
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert other.communicate("")[0] == "[1, 0]\n"


def test_descriptors_that_come_and_go_meanwhile_are_in_nobodys_way() -> None:
    with subprocess.Popen([sys.executable, "-c", RESTLESS], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        before = descriptors()
        try:
            found = [len(list(nodelay.listening_sockets(other.pid))) for _ in range(1000)]
        finally:
            other.kill()
    assert found == [1] * 1000
    assert descriptors() == before - 1, "the other's output was closed, and nothing was left open"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_kernel_that_forbids_it_fails_no_login_and_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(pid: int) -> list[socket.socket]:
        raise PermissionError(1, "pidfd_getfd: Operation not permitted")

    monkeypatch.setattr(nodelay, "listening_sockets", forbidden)
    nodelay.main()
    assert "not permitted" in (told := capsys.readouterr().err) and "systemctl restart shipit-ssh-nodelay" in told


@pytest.mark.parametrize("content", ["", "x", "0", "999999999", "this process"])
def test_a_pid_file_that_is_not_of_sshd_names_nobody(tmp_path: Path, content: str) -> None:
    file = tmp_path / "sshd.pid"
    assert nodelay.sshd(file) == 0
    file.write_text(str(os.getpid()) if content == "this process" else content)
    assert nodelay.sshd(file) == 0
    assert list(nodelay.listening_sockets(0)) == []


def test_the_pid_file_of_sshd_names_it(tmp_path: Path) -> None:
    program = tmp_path / "sshd"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as running:
        (tmp_path / "sshd.pid").write_text(f"{running.pid}\n")
        assert nodelay.sshd(tmp_path / "sshd.pid") == running.pid
        running.kill()
