"""Connections that are opened before anything slow is imported."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from receiver.host import early
from receiver.paths import Layout


def test_the_paths_are_the_layouts() -> None:
    assert str(Layout().agent_socket) == early.AGENT
    assert str(Layout().worker_socket) == early.WORKER


def test_a_call_is_a_connection(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with socket.socket(fileno=early.call(str(tmp_path / "s"))) as ours, server.accept()[0] as theirs:
            assert not os.get_inheritable(ours.fileno())
            ours.sendall(b"x")
            assert theirs.recv(1) == b"x"


def test_nobody_there_is_no_error_yet(tmp_path: Path) -> None:
    assert early.call(str(tmp_path / "missing")) == -1


def test_it_imports_nothing_slow() -> None:
    before = "import sys; before = set(sys.modules); from receiver.host import early; "
    show = "print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", before + show], capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) <= {"__future__", "_socket", "receiver", "receiver.host", "receiver.host.early"}
