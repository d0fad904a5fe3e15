"""Keeps a program's output up to a limit; the rest is read and dropped, so that the program need not wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 65536


class Drain:
    """The program writes to `fd`; after the block `text` has what was kept."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.text = b""


@contextmanager
def drained(most: int) -> Iterator[Drain]:
    """A pipe for the block, of which the first `most` bytes are kept."""
    reader, writer = os.pipe()
    found = Drain(writer)
    kept = bytearray()

    def read() -> None:
        while chunk := os.read(reader, CHUNK):
            kept.extend(chunk[: most - len(kept)])

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
        found.text = bytes(kept)
