"""What setrlimit(2) can hold a process to where there are no control groups: each process by itself, not their sum."""

from __future__ import annotations

import os
import resource

MIB = 2**20
FILE_SIZE = 8 * 2**30  # as LimitFSIZE= of the job units
OPEN_FILES = 65536
TASKS = 4096


def apply(*, memory: int = 0, tasks: int = 0, file_size: int = 0) -> None:
    """Set the limits of this process and all it will start; 0 means none. `memory` in MiB, `file_size` in bytes.

    Memory is RLIMIT_DATA: what a process may write to. RLIMIT_AS would also count what it only reserves, which for
    Node and Java is many times what they use. A wish above the hard limit gets the hard limit.
    """
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    if memory:
        _set(resource.RLIMIT_DATA, memory * MIB)
    if tasks:
        _set(resource.RLIMIT_NPROC, tasks)
    if file_size:
        _set(resource.RLIMIT_FSIZE, file_size)


def defaults() -> tuple[int, int]:
    """Memory (MiB) of one process and tasks of one user where nobody has set them, so that one app does not take all:
    as much of the machine as systemd's slice of an app has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4 // MIB
    return memory, TASKS


def _set(kind: int, wanted: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (value, value))
