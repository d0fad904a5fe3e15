"""When an old release may be told to stop: as soon as no request is left on its sockets.

nginx keeps connections for at most 100 ms without a request, and after the switch it sends no new request over those to
an old release (ledger/pool.py). So a socket without connections has no request and gets no new one. The kernel's list
includes connections that were not accepted yet: one that waits in the listener's queue is a request, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from receiver.proxy import sockets

EVERY = 0.01
# A connect(2) by the old link, just before the rename, may show up in the list a moment after it.
QUIET = 0.03


def wait_until_idle(paths: Collection[Path], seconds: float, *, give_up: Callable[[], bool] = lambda: False) -> bool:
    """Wait until no connection has been open to any of `paths` (as bound) for 30 ms; False after `seconds`.

    `give_up` is called now and then; if it returns True, the wait ends early, with False. Changes nothing on the host.
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
