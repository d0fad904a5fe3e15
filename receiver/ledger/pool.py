"""Which of nginx's pools of kept connections the requests to a release go through.

nginx keeps connections to an app for its next requests. Each switch moves on to another of a few pools, so that no request
meets a release that was replaced. A file in the live release's directory names the pool: `current/pool.1`. CLEAN seconds
after a switch, no connection of the pool before it is left, whatever its requests still do (docs/proxy.md). A release ends
up in pool 0. If it has one web process, nginx then needs a single look at a file (`current/one`).
"""

from __future__ import annotations

import time
from contextlib import suppress

from receiver.paths import ONE, POOLS, AppPaths, ReleasePaths
from receiver.system import disk

# What nginx does with a kept connection: closed after so long without a request, and after so long in all (ms).
IDLE, OLDEST = 100, 1000
# From when on a pool that was left holds no connection any more (s): OLDEST, IDLE, and room for a busy machine.
CLEAN = 1.5
MODE = 0o640

# When each pool was left.
Left = tuple[float, ...]


def enter(release: ReleasePaths, live: ReleasePaths | None, web: int) -> None:
    """Give `release`, with so many web processes, which is about to replace `live`, a pool that holds no connection to
    any other release.

    Waits where that needs time: for the third switch within CLEAN seconds. Nothing of it must outlast a power cut,
    which ends nginx's connections, too.
    """
    own, _ = _marks(release)
    if (live is None and own) or live == release:
        return
    used, left = _marks(live) if live else (set(), ())
    if live and not used:
        # An older shipit's: what has no mark is in pool 0.
        used = {0}
    left = left or (-CLEAN,) * POOLS
    new = min({*range(POOLS)} - used, key=lambda index: left[index])
    _wait(left[new])
    leave(release)
    now = _now()
    _mark(release, new, tuple([now if index in used else when for index, when in enumerate(left)]))
    if new == 0 and web == 1:
        _shorten(release)


def rest(release: ReleasePaths, web: int) -> None:
    """Bring the live release to pool 0, once that is clean; for whoever holds the app's lock."""
    used, left = _marks(release)
    if used and 0 not in used and _is_clean(left[0]):
        now = _now()
        # Killed in between, both pools count as used.
        _mark(release, 0, tuple([now if index in used else when for index, when in enumerate(left)]))
        for index in used:
            disk.remove_file(release.pool(index))
        used = {0}
    if used == {0} and web == 1:
        _shorten(release)


def look_everywhere(app: AppPaths) -> None:
    """Have nginx look at more than one file for each request to the app, the marker of its maintenance among them."""
    for one in app.releases.glob(f"v*/{ONE}"):
        disk.remove_file(one)


def leave(release: ReleasePaths) -> None:
    """Take the marks of a release away that serves no more."""
    for path in (release.one, *map(release.pool, range(POOLS))):
        disk.remove_file(path)


def _shorten(release: ReleasePaths) -> None:
    """Tell nginx that one look is enough. Not in a maintenance, which may begin in between: its marker is written before
    `look_everywhere`, so one of the two takes the file away."""
    release.one.touch(MODE)
    if release.app.maintenance.exists():
        disk.remove_file(release.one)


def _wait(left: float) -> None:
    # Longer ago than this machine is up is before its last boot.
    if 0 <= (ago := _now() - left) < CLEAN:
        time.sleep(CLEAN - ago)


def _is_clean(left: float) -> bool:
    return not 0 <= _now() - left < CLEAN


def _now() -> float:
    """Seconds since the machine was booted: nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _mark(release: ReleasePaths, pool: int, left: Left) -> None:
    text = " ".join(map(repr, left)) + "\n"
    disk.write_atomically(release.pool(pool), text.encode(), MODE, lasts=disk.Lasts.LATER)


def _marks(release: ReleasePaths) -> tuple[set[int], Left]:
    """The pools of a release, and when each was left; what is damaged says only that the pool is used."""
    used: set[int] = set()
    left: Left = ()
    for index in range(POOLS):
        with suppress(OSError, ValueError):
            text = release.pool(index).read_text()
            used.add(index)
            said = tuple(map(float, text.split()))
            if len(said) == POOLS:
                left = max(left, said, key=sum) if left else said
    return used, left
