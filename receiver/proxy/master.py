"""nginx's master process: whether it runs, and whether it has read its configuration. Standard library only, because
removing shipit needs it, too."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from receiver.errors import HostFault, as_root
from receiver.paths import Layout
from receiver.system import family

# How long nginx may take to read its configuration and start new workers (s).
RELOAD_TIMEOUT = 10.0


def pid(layout: Layout) -> int:
    """The pid of nginx's master process; 0 if it does not run."""
    try:
        found = int((layout.root / "run/nginx.pid").read_text())
        return found if Path(f"/proc/{found}/comm").read_text() == "nginx\n" else 0
    except (OSError, ValueError):
        return 0


def reload(layout: Layout, master: int) -> None:
    """Send SIGHUP to the master (`systemctl reload nginx` does only that), and wait until it took effect.

    A master that cannot use the new configuration only logs that, and goes on with the old one. So wait until new
    children appear and the old ones have stopped accepting (their title says so, or they are gone). The children of a
    reload that another program has just begun prove nothing, since that reload has read the old files. So that reload
    is waited for first.
    """
    log = layout.root / "var/log/nginx/error.log"
    logged = log.stat().st_size if log.exists() else 0
    deadline = time.monotonic() + RELOAD_TIMEOUT
    while _reloads(master) and time.monotonic() < deadline:
        time.sleep(0.01)
    old = children(master)
    os.kill(master, signal.SIGHUP)
    deadline = time.monotonic() + RELOAD_TIMEOUT
    while True:
        time.sleep(0.01)
        if not _reloads(master):
            now = children(master)
            if now - old and not any(map(_accepts, old & now)):
                return
        if time.monotonic() > deadline:
            raise HostFault(
                "nginx did not take its new configuration.",
                holds="The old configuration stays in force.",
                hint=as_root("tail /var/log/nginx/error.log"),
                details=_alarms(log, logged),
            )


def children(parent: int) -> set[int]:
    """The pids of a process's children."""
    return {child for child, above in family.parents().items() if above == parent}


def _reloads(master: int) -> bool:
    """Whether a SIGHUP is pending for the master, or it is reloading now: it takes signals only while it is idle
    (sigsuspend(2)), and blocks them at all other times (proc(5), status)."""
    try:
        status = Path(f"/proc/{master}/status").read_text(errors="replace")
    except OSError:
        return False
    masks = re.findall(r"^(?:SigPnd|ShdPnd|SigBlk):\s*([0-9a-f]+)$", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGHUP - 1) & 1 for mask in masks)


def _accepts(worker: int) -> bool:
    try:
        return b"shutting down" not in Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False


def _alarms(log: Path, since: int) -> list[str]:
    """The [emerg] messages in nginx's log after its first `since` bytes."""
    try:
        with log.open("rb") as lines:
            lines.seek(since)
            return [line.decode(errors="replace").rstrip() for line in lines if b"[emerg]" in line][-5:]
    except OSError:
        return []
