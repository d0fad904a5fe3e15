"""What somebody sends on standard input: bounded in size, and in how long it may keep a command waiting."""

from __future__ import annotations

import os
import select
import time

from receiver.errors import Rejected

PATIENCE = 60.0  # seconds without a byte
ALTOGETHER = 600.0


def read_input(most: int, hint: str) -> bytes:
    """All of standard input. Raises Rejected when it is larger than `most` bytes or stays silent; `hint` says how it is
    given."""
    parts: list[bytes] = []
    size = 0
    deadline = time.monotonic() + ALTOGETHER
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while True:
        wait = min(PATIENCE, deadline - time.monotonic())
        if wait <= 0 or not poll.poll(wait * 1000):
            raise Rejected("Nothing came on standard input for too long.", holds="Nothing was changed.", hint=hint)
        part = os.read(0, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > most:
            raise Rejected(
                f"More than {most // 1024} KiB came on standard input.", holds="Nothing was changed.", hint=hint
            )
