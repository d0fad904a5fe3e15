"""Which of nginx's pools of kept connections the requests to a release go through.

nginx keeps connections to an app for its next requests. So that no request meets a release that was replaced, each
switch moves on to the next of a few pools, told by a file in the live release's directory: `current/pool.1`.
A pool that was left is clean after CLEAN seconds, whatever its requests still do (docs/proxy.md).
"""

from __future__ import annotations

import time
from contextlib import suppress

from receiver.paths import POOLS, ReleasePaths
from receiver.system import disk

# What nginx does with a kept connection: closed after so long without a request, and after so long in all (ms).
IDLE, OLDEST = 100, 1000
# From when on a pool that was left holds no connection any more (s): OLDEST, IDLE, and room for a busy machine.
CLEAN = 1.5

Left = tuple[float, ...]


def enter(release: ReleasePaths, live: ReleasePaths | None) -> None:
    """Give `release`, which is about to replace `live`, a pool that holds no connection to any other release.

    Waits where that needs time: only for the third switch within CLEAN seconds. Nothing of it must outlast a power
    cut, which ends nginx's connections, too.
    """
    known = _mark(release)
    if (live is None and known is not None) or live == release:
        return
    pool, left = (_mark(live) if live else None) or (0, (-CLEAN,) * POOLS)
    new = (pool + 1) % POOLS
    # Longer ago than this machine is up is before its last boot.
    if 0 <= (ago := _now() - left[new]) < CLEAN:
        time.sleep(CLEAN - ago)
    leave(release)
    left = tuple([_now() if live and index == pool else when for index, when in enumerate(left)])
    text = " ".join(map(repr, left)) + "\n"
    disk.write_atomically(release.pool(new), text.encode(), 0o640, lasts=disk.Lasts.LATER)


def leave(release: ReleasePaths) -> None:
    """Take the mark of a release away that serves no more."""
    for index in range(POOLS):
        disk.remove_file(release.pool(index))


def _now() -> float:
    """Seconds since the machine was booted: nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _mark(release: ReleasePaths) -> tuple[int, Left] | None:
    """The pool of a release, and when each of them was left; None for one that has no mark, or a damaged one."""
    for index in range(POOLS):
        with suppress(OSError, ValueError):
            left = tuple(map(float, release.pool(index).read_text().split()))
            if len(left) == POOLS:
                return index, left
    return None
