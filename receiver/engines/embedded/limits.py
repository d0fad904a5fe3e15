"""Limits by setrlimit(2), for machines without control groups: for each process alone, not for their sum."""

from __future__ import annotations

import os
import resource

MIB = 2**20
FILE_SIZE = 8 * 2**30  # as LimitFSIZE= of the job units
OPEN_FILES = 65536
TASKS = 4096


def apply(*, memory: int = 0, tasks: int = 0, file_size: int = 0) -> None:
    """Set the limits of this process and all it will start; 0 means none. `memory` in MiB, `file_size` in bytes.

    Memory is RLIMIT_DATA: the memory that a process may write to. RLIMIT_AS would also count reserved address space,
    which for Node and Java is many times what they use. A value above the hard limit is lowered to it.
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
    """The default memory (MiB) of one process and tasks of one user, so that one app cannot take everything: the same
    share of the machine as systemd's slice of an app has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4 // MIB
    return memory, TASKS


def _set(kind: int, wanted: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (value, value))
