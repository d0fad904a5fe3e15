"""What comes on standard input: bounded in size and in time (threat row 8)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from receiver.cli import given
from receiver.errors import Rejected


@pytest.fixture
def sender() -> Iterator[int]:
    """Where to write what comes on standard input."""
    kept = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    yield writer
    os.dup2(kept, 0)
    os.close(kept)
    os.close(writer)


def test_all_that_comes_is_read_as_it_is(sender: int) -> None:
    os.write(sender, b"a\r\n\xff\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sender)
    assert given.read_input(100, "") == b"a\r\n\xff\n"


def test_who_stays_silent_on_standard_input_is_not_waited_for(sender: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "PATIENCE", 0.1)
    os.write(sender, b"half")
    with pytest.raises(Rejected, match="too long"):
        given.read_input(100, "")


def test_more_than_is_taken_is_refused_and_not_kept(sender: int) -> None:
    os.write(sender, b"x" * 5000)
    with pytest.raises(Rejected, match="More than 1 KiB"):
        given.read_input(1024, "")
