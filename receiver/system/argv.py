"""The words of this process's command line, which every user of the machine can read (proc(5), cmdline)."""

from __future__ import annotations

import ctypes
from pathlib import Path

# proc(5), stat: the fields arg_start and arg_end, counted from the one after the program's name.
START, END = 45, 46


def hide_words(after: int) -> None:
    """Blank all but the first `after` words, for this process and those that it forks."""
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    words = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    shown = sum(len(word) + 1 for word in words[:after])
    start, end = int(stat[START]) + shown, int(stat[END])
    # Zeros up to the end: the kernel shows what follows only if the last byte is not zero (fs/proc/base.c).
    if int(stat[START]) and start < end:
        ctypes.memset(start, 0, end - start)
