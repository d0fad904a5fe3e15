from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from receiver.cli.main import ALIASES, COMMANDS
from receiver.host import early


def test_the_descriptor_is_a_connection_to_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "agent.sock")
    monkeypatch.setattr(early, "AGENT", path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        called = early.call()
        there, _ = server.accept()
        os.write(called, b"x")
        assert there.recv(1) == b"x"
        os.close(called)
        there.close()


def test_without_an_agent_there_is_no_descriptor_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "AGENT", str(tmp_path / "none"))
    assert early.call() == -1


def test_what_calls_the_agent_early_are_commands_that_exist() -> None:
    known = [*COMMANDS, *ALIASES]
    for start in early.ASKING:
        if not start.startswith("git"):
            assert any(f"{name} ".startswith(start) for name in known), start
    assert early.will_ask("shipit rollback blog") and early.will_ask("rollback blog")
    assert not early.will_ask("releases blog")
