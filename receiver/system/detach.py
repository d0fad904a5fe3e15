"""Being a process of one's own after a fork."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def detach(keep: Collection[int], name: str) -> None:
    """Belong to nobody's session and hold nothing of theirs but the descriptors `keep`: neither pipes that somebody
    waits on nor locks. `name` (15 letters at most) is what ps(1) shows.

    Descriptors are replaced and not closed: objects of the code that we were forked from still have their numbers.
    """
    os.setsid()
    os.chdir("/")
    Path("/proc/self/comm").write_text(name)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        fd = int(entry)
        if fd not in keep and fd != null:
            os.dup2(null, fd, inheritable=fd < 3)
