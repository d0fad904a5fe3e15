"""Limits the memory of what serves a login: a push of a few megabytes may unpack to gigabytes."""

from __future__ import annotations

import os
import resource

MIB = 2**20


def limit_memory(mib: int) -> None:
    """Limit this process, and each one that it starts from now on, to `mib` MiB, or to half of the machine's memory.

    What counts is memory that a process may write to (RLIMIT_DATA, setrlimit(2)), not the files that it maps, as git
    does with packs. Beyond the limit git ends with a message; Python raises MemoryError. A later call may change the
    limit.
    """
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    wanted = min(mib * MIB, half)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
