"""Makes a forked process independent of its parent's session and files."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def detach(keep: Collection[int], name: str) -> None:
    """Leave the session, and drop all descriptors except those in `keep`: pipes that others wait on, and locks. ps(1)
    shows `name` (at most 15 bytes).

    Descriptors are replaced, not closed: Python objects from before the fork still have their numbers.
    """
    os.setsid()
    os.chdir("/")
    Path("/proc/self/comm").write_text(name)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        fd = int(entry)
        if fd not in keep and fd != null:
            os.dup2(null, fd, inheritable=fd < 3)
