"""Machines to test on: `Host` boots a tree with systemd, `Box` runs the same tree without it."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from .base import LabError
from .machine import Machine, unified_has_memory


class Host(Machine):
    """A server: systemd is PID 1."""

    def _v1(self) -> bool:
        return self.limits and not unified_has_memory()

    def _nspawn_words(self) -> list[str]:
        words = ["--kill-signal=SIGRTMIN+3"]
        if not self._v1():
            return [*words, "--boot"]
        controllers = "cpu cpuacct memory pids freezer devices blkio cpuset"
        remount = f"for c in {controllers}; do mount -o remount,bind,rw /sys/fs/cgroup/$c; done"
        return [*words, "/bin/sh", "-c", f"{remount}; exec /lib/systemd/systemd"]

    def _await_ready(self, notices: socket.socket, deadline: float) -> None:
        while self._next_notice(notices, deadline).get("READY") != "1":
            continue
        while self.state() not in ("running", "degraded"):
            self._next_notice(notices, deadline)

    def state(self) -> str:
        """`running`, `degraded` …, in systemd's own words."""
        return self.run("systemctl", "is-system-running", check=False).out.strip()

    def reboot(self, timeout: float = 120) -> None:
        """A clean reboot, up again when this returns."""
        self.run("systemctl", "reboot", check=False)
        self._await_end(timeout)
        self._start()

    def power_off(self, timeout: float = 120) -> None:
        """A clean shutdown; the disk stays, power_on starts it again."""
        self.run("systemctl", "poweroff", check=False)
        self._await_end(timeout)

    def journal(self, *words: str, lines: int = 1000) -> str:
        """The journal, oldest first; the words go to journalctl: "-u", "nginx"."""
        return self.run("journalctl", "--no-pager", "-q", "-o", "short-precise", f"-n{lines}", *words, check=False).out

    def failed_units(self) -> list[str]:
        listed = self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", check=False).out
        return [line.split()[0] for line in listed.splitlines() if line.strip()]


class Box(Machine):
    """The same tree as a container sees it: PID 1 is no init system, /run/systemd/system is absent.

    Its main process is `command` (by default one that does nothing); a reboot starts only that again.
    """

    command: tuple[str, ...] = ("sleep", "infinity")
    main = 0
    """The main process, by its number outside; inside it is 2."""

    def _nspawn_words(self) -> list[str]:
        return ["--notify-ready=no", "--as-pid2", "--kill-signal=SIGTERM", "--", *self.command]

    def _await_ready(self, notices: socket.socket, deadline: float) -> None:
        while not self.leader:
            self._next_notice(notices, deadline)
        children = Path(f"/proc/{self.leader}/task/{self.leader}/children")
        # Nothing may be run inside before: it would take the main process's number, 2.
        while not (found := children.read_text().split()):
            time.sleep(0.005)
            if time.monotonic() > deadline:
                raise LabError(f"{self!r} has no main process:\n{self.console()}")
        self.main = int(found[0])

    def reboot(self, timeout: float = 30) -> None:
        """Like `docker restart`: SIGTERM to the main process, SIGKILL when it does not listen, start again."""
        self.power_off(timeout)
        self._start()

    def power_off(self, timeout: float = 30) -> None:
        if self.main > 0:
            with suppress(ProcessLookupError):
                os.kill(self.main, signal.SIGTERM)
        try:
            self._await_end(timeout)
        except LabError:
            self._kill()
        self._slot.kill()

    def run_as_main(self, *command: str) -> None:
        """From now on this is the main process: the machine starts again with it."""
        self.command = command
        self.power_cut()
