"""nginx on the programs and libraries that are on the disk now, without a request lost: it executes itself anew with its
listening sockets open (nginx.org, "Upgrading Executable on the Fly")."""

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

TIMEOUT = 20.0  # for the new one's workers (s)


def renew(layout: Layout) -> None:
    """Return when the new nginx accepts; the old one ends when the requests that it has taken are answered.

    Raises HostFault; then the old one goes on. As at each reload, connections that are kept and idle are closed.
    """
    with disk.locked(layout.nginx / ".lock", wait=True):
        old = master.pid(layout)
        if not old or not engines.hints().renews_proxy:
            raise HostFault("There is no nginx that systemd keeps.", hint=engines.hints().start_proxy)
        validate(layout)
        os.kill(old, signal.SIGUSR2)
        deadline = time.monotonic() + TIMEOUT
        # Whoever connects meanwhile waits in the queue of the sockets, which both have.
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
    """The same for who reads standard error; returns an exit code."""
    try:
        renew(layout)
    except Failure as failure:
        print("\n".join(failure.lines()), file=sys.stderr)
        return failure.exit_code
    return 0
