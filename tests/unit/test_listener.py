"""Who listens for the agent: a process for each connection, imports while nobody waits, an end when nobody comes."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from receiver.system import listener
from receiver.system.listener import fork_for_each


class Listening:
    """fork_for_each in a process of its own; each connection is told whose child it is and what was done ahead."""

    def __init__(self, path: Path, *, idle: float | None = None, steps: int = 0, most: int = 256) -> None:
        self.path, self.done = path, 0
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen(64)
            self.pid = os.fork()
            if self.pid == 0:
                listener.MOST = most
                with suppress(BaseException):
                    fork_for_each(server, self.serve, ahead=self.ahead(steps), idle=idle)
                    os._exit(3)
                os._exit(70)

    def ahead(self, steps: int) -> Iterator[None]:
        for self.done in range(1, steps + 1):
            time.sleep(0.05)
            yield

    def serve(self, connection: socket.socket) -> int:
        connection.sendall(f"{os.getppid()} {self.done}\n".encode())
        return len(connection.recv(1))

    def ask(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        return connection

    def ended(self, within: float = 10) -> int:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        raise AssertionError("it still listens")

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def told(connection: socket.socket) -> list[int]:
    connection.settimeout(10)
    return [int(word) for word in connection.recv(100).split()]


def test_each_connection_has_a_process_of_its_own_and_none_is_left_behind(tmp_path: Path) -> None:
    with Listening(tmp_path / "s", idle=0.3) as listening:
        with ExitStack() as held:
            for connection in [held.enter_context(listening.ask()) for _ in range(20)]:
                assert told(connection)[0] == listening.pid
            children = Path(f"/proc/{listening.pid}/task/{listening.pid}/children")
            assert len(children.read_text().split()) == 20
        assert listening.ended() == 3, "it ends once nobody is connected"


def test_while_somebody_is_connected_it_does_not_end(tmp_path: Path) -> None:
    with Listening(tmp_path / "s", idle=0.2) as listening:
        with listening.ask() as connection:
            assert told(connection)
            with pytest.raises(AssertionError):
                listening.ended(within=1)
        assert listening.ended() == 3


def test_what_is_done_ahead_keeps_nobody_waiting_and_is_done_for_those_who_come_later(tmp_path: Path) -> None:
    with Listening(tmp_path / "s", steps=20) as listening:
        with listening.ask() as connection:
            assert told(connection)[1] <= 2
        time.sleep(1.5)
        with listening.ask() as connection:
            assert told(connection)[1] == 20


def test_no_more_are_served_at_once_than_is_said_and_the_others_wait(tmp_path: Path) -> None:
    with Listening(tmp_path / "s", most=2) as listening:
        first, second, third = listening.ask(), listening.ask(), listening.ask()
        assert told(first) and told(second)
        assert not select.select([third], [], [], 0.5)[0]
        first.close()
        assert told(third)
        for connection in (second, third):
            connection.close()
