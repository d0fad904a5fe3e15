"""When an old release may be told to stop: as soon as no request is left on its sockets.

nginx keeps connections, but no longer than 100 ms without a request, and after the switch it uses none to an old release
for a new one (ledger/pool.py). So a socket without connections has no request and gets no new one. The kernel's list shows
also what was not accepted yet: a connection that waits in the listener's queue is a request that nobody would answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from receiver.proxy import sockets

EVERY = 0.01
# A connect(2) that followed the old link a moment before the rename shows up a moment after it.
QUIET = 0.03


def wait_until_idle(paths: Collection[Path], seconds: float, *, give_up: Callable[[], bool] = lambda: False) -> bool:
    """Wait until no connection has been open to any of `paths` (as bound) for 30 ms; False after `seconds`.

    `give_up` is asked every now and then: True ends the wait early, with False. Changes nothing on the host.
    """
    wanted = {str(path) for path in paths}
    now = time.monotonic()
    deadline, quiet_since, pause = now + seconds, now, EVERY
    while True:
        time.sleep(pause)
        now = time.monotonic()
        if open_connections(wanted):
            quiet_since, pause = now, min(pause * 1.2, 0.25)
        elif now - quiet_since >= QUIET:
            return True
        else:
            pause = EVERY
        if now >= deadline or give_up():
            return False


def open_connections(paths: Collection[str]) -> int:
    """How many connections to these unix sockets exist, accepted or waiting."""
    return sum(name in paths for name in sockets.connected())
