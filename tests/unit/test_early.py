from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from receiver.cli.main import ALIASES, COMMANDS
from receiver.host import early


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[socket.socket, socket.socket]:
    """Listening in the place of the worker and the agent."""
    made = []
    for name in ("WORKER", "AGENT"):
        path = str(tmp_path / name)
        monkeypatch.setattr(early, name, path)
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(1)
        made.append(server)
    return made[0], made[1]


def test_the_worker_is_handed_the_agents_connection(sockets: tuple[socket.socket, socket.socket]) -> None:
    worker, agent = early.call_both()
    there, _ = sockets[0].accept()
    answering, _ = sockets[1].accept()
    handed = early.given(there.fileno())
    assert handed >= 0
    os.write(handed, b"x")
    assert answering.recv(1) == b"x"
    os.write(worker, b"deploy blog 1\n")
    assert there.recv(100) == b"deploy blog 1\n"
    for fd in (worker, agent, handed):
        os.close(fd)


def test_of_a_line_that_came_without_a_descriptor_nothing_is_lost() -> None:
    here, there = socket.socketpair()
    here.sendall(b"deploy blog 1\n")
    assert early.given(there.fileno()) == -1
    assert there.recv(100) == b"deploy blog 1\n"


def test_nothing_is_waited_for() -> None:
    _here, there = socket.socketpair()
    assert early.given(there.fileno()) == -1


def test_without_a_server_there_is_no_descriptor_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "WORKER", str(tmp_path / "none"))
    monkeypatch.setattr(early, "AGENT", str(tmp_path / "none"))
    assert early.call_both() == (-1, -1)


def test_what_calls_a_worker_early_are_commands_that_exist() -> None:
    words = [word.strip() for word in early.RELEASES if not word.startswith("git")]
    assert all(ALIASES.get(word, word) in COMMANDS for word in words)
    assert early.makes_release("shipit rollback blog") and early.makes_release("rollback blog")
    assert not early.makes_release("releases blog")
