"""Named points of a deploy at which the fault tests kill it or hold it, by the worker's environment:
`SHIPIT_DIE_AT=committed`, `SHIPIT_STOP_AT=committed`, `SHIPIT_STOP_AT=all`.

Only root can set a unit's environment, so a pusher cannot use this.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "opened", "unpacking", "built", "configured", "released", "started", "healthy", "committed", "announced", "retired",
)  # fmt: skip


def reach(name: str) -> None:
    """Die here, as by kill -9, or stop until SIGCONT, if the tests ask for it."""
    if name not in NAMES:
        raise ValueError(f"no such checkpoint: {name}")
    if os.environ.get("SHIPIT_DIE_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("SHIPIT_STOP_AT") in (name, "all"):
        os.kill(os.getpid(), signal.SIGSTOP)
