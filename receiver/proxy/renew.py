"""Has nginx use the programs and libraries that are on the disk now, without losing a request: nginx re-executes itself
with its listening sockets open (nginx.org, "Upgrading Executable on the Fly")."""

from __future__ import annotations

import os
import signal
import sys
import time

from receiver.engines import all as engines
from receiver.errors import Failure, HostFault
from receiver.paths import Layout
from receiver.proxy import master
from receiver.proxy.nginx import validate
from receiver.system import disk

TIMEOUT = 20.0  # s; for the new nginx to start its workers


def renew(layout: Layout) -> None:
    """Returns when the new nginx accepts connections; the old one ends when its requests are answered.

    Raises HostFault; then the old one goes on. As at each reload, idle kept connections are closed.
    """
    with disk.locked(layout.nginx / ".lock", wait=True):
        old = master.pid(layout)
        if not old or not engines.hints().renews_proxy:
            raise HostFault("There is no nginx that systemd keeps.", hint=engines.hints().start_proxy)
        validate(layout)
        os.kill(old, signal.SIGUSR2)
        deadline = time.monotonic() + TIMEOUT
        # New connections wait meanwhile in the queue of the sockets, which both processes share.
        while (new := master.pid(layout)) in (0, old) or not master.children(new):
            if time.monotonic() > deadline:
                raise HostFault(
                    "nginx did not execute itself anew.",
                    holds="The one that runs goes on.",
                    hint="It does not while one before it still finishes requests, or a websocket: pgrep -a nginx",
                )
            time.sleep(0.02)
        os.kill(old, signal.SIGQUIT)


def renew_told(layout: Layout) -> int:
    """`renew` with its failure printed to standard error; returns an exit code."""
    try:
        renew(layout)
    except Failure as failure:
        print("\n".join(failure.lines()), file=sys.stderr)
        return failure.exit_code
    return 0
