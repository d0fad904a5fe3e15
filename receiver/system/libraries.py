"""Finds programs and libraries of the system that were replaced or removed while processes still use them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from receiver.system import family

# proc_pid_maps(5): an executable mapping of a system file whose name now leads to another file, or to none.
_GONE = re.compile(
    r"^\S+ \S\Sx\S \S+ \S+ \S+ +/(?:usr/|s?bin/|lib\w*/)(?:[^\n]*/)?([\w.+-]+?)(?:\.dpkg-new)? \(deleted\)$", re.M
)


def replaced(pids: Iterable[int]) -> list[str]:
    """The names of such files that these processes, or their children, use. Needs root: processes that we may not look
    at are left out."""
    found: set[str] = set()
    first = set(pids)
    for pid in first | family.below(*first):
        with suppress(OSError):
            found.update(gone(Path(f"/proc/{pid}/maps").read_text(errors="replace")))
    return sorted(found)


def gone(maps: str) -> list[str]:
    return _GONE.findall(maps)
