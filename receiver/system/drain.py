"""What somebody else's program prints, kept up to a bound; the rest is read and dropped, so that it need not wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 65536


class Drain:
    """`fd` is what the program writes to; `text` is what came, when the block has ended."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.text = b""


@contextmanager
def drained(most: int) -> Iterator[Drain]:
    """For the time of a block, a pipe of which `most` bytes are kept."""
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
