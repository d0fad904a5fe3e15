"""systemctl(1), for calls that no deploy waits for (bus.py makes those)."""

from __future__ import annotations

import time

from receiver.engines.systemd import bus
from receiver.errors import HostFault
from receiver.system.run import Result, run

# systemctl(1)'s messages if systemd went away during a call.
AWAY = ("Connection reset by peer", "Transport endpoint is not connected", "Connection refused", "Broken pipe")
NOT_LOADED = 5  # systemctl(1), EXIT STATUS


def systemctl(*words: str, check: bool = True) -> Result:
    """One systemctl(1) call; raises HostFault if it fails, unless `check` is False. Repeated while systemd re-executes
    itself: all that shipit asks may be asked twice."""
    argv = ["systemctl", "--no-ask-password", "--quiet", *words]
    deadline = time.monotonic() + bus.PATIENCE
    while True:
        done = run(argv, check=False)
        if not done.code or time.monotonic() > deadline or not any(word in done.err for word in AWAY):
            break
        time.sleep(0.2)
    # A unit that matched a glob may be gone before it is stopped: then it has ended.
    gone = words[0] == "stop" and done.code == NOT_LOADED
    if done.code and check and not gone:
        said = (done.err or done.out).strip().splitlines()
        raise HostFault(f"{' '.join(argv)[:120]} failed with exit code {done.code}.", details=said[-20:])
    return done
