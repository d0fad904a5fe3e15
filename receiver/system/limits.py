"""How much memory what serves a login may take, whatever it is sent: a few megabytes of a push may unpack to gigabytes."""

from __future__ import annotations

import os
import resource

MIB = 2**20


def limit_memory(mib: int) -> None:
    """Hold this process, and by itself each one it starts from now on, to `mib` MiB, or to half of the machine's memory.

    Counted is what a process may write to (RLIMIT_DATA, setrlimit(2)) and not the files that it maps, as git does with
    packs. git says what it could not have and ends; Python raises MemoryError. May be called again, for another limit.
    """
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    wanted = min(mib * MIB, half)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
