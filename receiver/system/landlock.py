"""Starts a program that can write only below one directory, and read little else: landlock(7), enforced by the kernel.

Needs no rights, and cannot be undone. On a kernel before 5.13, or without landlock, it does nothing: so it is a second
protection, never the only one.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CREATE, ADD, RESTRICT = 444, 445, 446  # the same numbers on every architecture
PR_SET_NO_NEW_PRIVS = 38
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK, IOCTL_DEV = 1 << 6, 1 << 11, 1 << 15
# How many rights each version of the kernel's interface has.
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
TRUNCATE = 1 << 14
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
# What every program of Debian needs to read.
PROGRAMS = tuple(map(Path, ("/usr", "/bin", "/lib", "/lib64")))
FILES = tuple(map(Path, ("/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime")))


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confined(work: Path, start: Callable[[], T]) -> T:
    """Call `start` so that the program that it starts can write only below `work`; returns its result."""
    result: list[T] = []
    failed: list[BaseException] = []

    def within() -> None:
        # The restriction holds for this thread only, and for what it starts.
        try:
            with suppress(OSError):
                restrict(work)
            result.append(start())
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


def restrict(work: Path) -> None:
    """From now on this thread can write only below `work`; raises OSError if the kernel has no landlock."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = _checked(libc.syscall(CREATE, None, 0, 1))
    handled = (1 << RIGHTS.get(version, 16)) - 1
    attribute = ctypes.c_uint64(handled)
    ruleset = _checked(libc.syscall(CREATE, ctypes.byref(attribute), ctypes.sizeof(attribute), 0))
    try:
        _allow(libc, ruleset, [work], handled & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV | EXECUTE))
        _allow(libc, ruleset, PROGRAMS, EXECUTE | READ_FILE | READ_DIR)
        _allow(libc, ruleset, FILES, READ_FILE)
        _allow(libc, ruleset, [Path(os.devnull)], handled & (READ_FILE | WRITE_FILE | TRUNCATE))
        _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            rule = _Rule(rights if path.is_dir() else rights & OF_A_FILE, fd)
            _checked(libc.syscall(ADD, ruleset, 1, ctypes.byref(rule), 0))
        finally:
            os.close(fd)


def _checked(returned: int) -> int:
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return returned
