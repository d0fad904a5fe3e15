"""Processes and their descendants, read from proc(5); replaces control groups where there are none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def parents() -> dict[int, int]:
    """Every process that is no zombie → its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError):
                # proc(5), stat: the name in parentheses may contain anything, so look after it.
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = int(parent)
    return found


def below(*roots: int) -> set[int]:
    """All descendants of these processes."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [pid for root in roots for pid in children.get(root, ())]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return found


def memory(pids: Iterable[int]) -> int:
    """Bytes these processes use, shared pages divided among their users (proc(5), smaps_rollup: Pss)."""
    total = 0
    for pid in pids:
        with suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def work(pids: Iterable[int]) -> tuple[int, float]:
    """The number of threads of these processes, and the seconds of CPU time that they and their ended children used."""
    threads, ticks = 0, 0
    for pid in pids:
        with suppress(OSError, ValueError):
            # proc(5), stat: as above; utime, stime, cutime, cstime and num_threads.
            told = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            threads += int(told[17])
            ticks += sum(map(int, told[11:15]))
    return threads, ticks / os.sysconf("SC_CLK_TCK")


def with_environment(words: Iterable[str]) -> set[int]:
    """All processes that were started with all these `NAME=value` in their environment."""
    wanted = {word.encode() for word in words}
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.add(int(entry.name))
    return found


def of_users(uids: Iterable[int]) -> set[int]:
    """All processes of these users."""
    wanted = set(uids)
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if entry.stat().st_uid in wanted:
                    found.add(int(entry.name))
    return found


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL; processes that are gone already are skipped."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def reap() -> bool:
    """Collect every child that has ended; False if there are no children left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not pid:
            return True


def kill_all_below(root: int, *, seconds: float = 10.0) -> bool:
    """Kill all descendants of this process (which is a child subreaper) until none is left; False if time ran out."""
    deadline = time.monotonic() + seconds
    while left := below(root):
        kill(left)
        reap()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    reap()
    return True
