"""Fixtures: a receiver on loopback and the people who push to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gate_server import SSHD, Laptop, Server, make_python


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python(tmp_path_factory.mktemp("venv") / "v")


@pytest.fixture
def server(tmp_path: Path, python: Path) -> Iterator[Server]:
    if not SSHD:
        pytest.skip("there is no sshd here")
    made = Server(tmp_path / "s", python)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def laptop_of(server: Server, tmp_path: Path) -> Callable[[str, Path], Laptop]:
    def make(name: str, key: Path) -> Laptop:
        return Laptop(server, tmp_path / name / "tree", key)

    return make


@pytest.fixture
def laptop(server: Server, tmp_path: Path) -> Laptop:
    """Alice, who may deploy everything, with one commit to push."""
    return Laptop(server, tmp_path / "alice" / "tree", server.add_key("alice")).init()
