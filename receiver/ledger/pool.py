"""Which of nginx's pools of kept connections the requests to a release go through.

nginx keeps connections to an app open for the next requests. Each switch moves to another of a few pools, so no request
meets a connection of a release that was replaced. A file in the live release's directory names the pool:
`current/pool.1`. CLEAN seconds after a switch the previous pool has no connection left, however long its requests take
(docs/proxy.md). In the end a release is moved to pool 0. With one web process nginx then checks only one file for each
request (`current/one`).
"""

from __future__ import annotations

import time
from contextlib import suppress

from receiver.paths import ONE, POOLS, AppPaths, ReleasePaths
from receiver.system import disk

# When nginx closes a kept connection: after IDLE without a request, and after OLDEST in all (ms).
IDLE, OLDEST = 100, 1000
# When a pool that is no longer used has no connection left (s): OLDEST, IDLE, and a margin for a busy machine.
CLEAN = 1.5
MODE = 0o640

# When each pool was last used (s since boot).
Left = tuple[float, ...]


def enter(release: ReleasePaths, live: ReleasePaths | None, web: int) -> None:
    """Give `release`, which has `web` web processes and is about to replace `live`, a pool without connections to any
    other release.

    Waits if it has to: for the third switch within CLEAN seconds. The marks need not survive a power cut,
    which ends nginx's connections, too.
    """
    own, _ = _marks(release)
    if (live is None and own) or live == release:
        return
    used, left = _marks(live) if live else (set(), ())
    if live and not used:
        # A release of an older shipit has no mark; it uses pool 0.
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
    """Move the live release to pool 0 once that is clean. The caller holds the app's lock."""
    used, left = _marks(release)
    if used and 0 not in used and _is_clean(left[0]):
        now = _now()
        # If killed in between, both pools count as used.
        _mark(release, 0, tuple([now if index in used else when for index, when in enumerate(left)]))
        for index in used:
            disk.remove_file(release.pool(index))
        used = {0}
    if used == {0} and web == 1:
        _shorten(release)


def look_everywhere(app: AppPaths) -> None:
    """Have nginx check all the files for each request to the app again, the marker of its maintenance among them."""
    for one in app.releases.glob(f"v*/{ONE}"):
        disk.remove_file(one)


def leave(release: ReleasePaths) -> None:
    """Remove the marks of a release that no longer serves."""
    for path in (release.one, *map(release.pool, range(POOLS))):
        disk.remove_file(path)


def _shorten(release: ReleasePaths) -> None:
    """Tell nginx that it need check only one file. Not during maintenance. Maintenance may begin at the same moment:
    its marker is written before `look_everywhere` is called, so one of the two removes the file again."""
    release.one.touch(MODE)
    if release.app.maintenance.exists():
        disk.remove_file(release.one)


def _wait(left: float) -> None:
    # A time in the future is from before the last boot.
    if 0 <= (ago := _now() - left) < CLEAN:
        time.sleep(CLEAN - ago)


def _is_clean(left: float) -> bool:
    return not 0 <= _now() - left < CLEAN


def _now() -> float:
    """Seconds since boot: this clock is never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _mark(release: ReleasePaths, pool: int, left: Left) -> None:
    text = " ".join(map(repr, left)) + "\n"
    disk.write_atomically(release.pool(pool), text.encode(), MODE, lasts=disk.Lasts.LATER)


def _marks(release: ReleasePaths) -> tuple[set[int], Left]:
    """The pools of a release, and when each was last used; from damaged marks only that the pool is used."""
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
