"""A virtual machine as a process of a release: qemu, started by the launcher, as the app's user, in the unit's sandbox.

The disk in the slug is read-only here: what the machine writes goes to an unnamed temporary file of qemu's and is lost
when the process ends. `Plan` holds qemu's arguments (qemu.py). This program stays qemu's parent: it prints the
machine's serial console as its own output, turns SIGTERM into a press of the power button (monitor.py), and starts the
front (front.py), which takes requests once something in the machine listens. An app's data disk is passed on from
release to release (heirloom.py).
Whether KVM can run the machine is known only after a try: if it fails, qemu emulates the machine instead (TCG).
Standard library only.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from receiver.inside import front
from receiver.inside.container import listening
from receiver.inside.diskimage import no_firmware
from receiver.inside.heirloom import Heirloom
from receiver.inside.monitor import Monitor
from receiver.inside.qemu import Plan, environment, no_qemu, planned

KVM = "/dev/kvm"
SLOWER = "qemu translates the machine (TCG), about ten times slower"
NO_COMMANDS = "shipit: a virtual machine has its own commands only: log in to it as to any machine."
PRESS_AGAIN = 5.0  # s; a machine that is just starting ignores its power button
PROBE_EVERY = 0.5
RESUME_EVERY = 5.0
LINE = 4096
# Control sequences for the cursor and colours that programs write on a console, and other bytes that are no text.
_CONTROLS = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_]|[()][0-9A-B])|[\x00-\x08\x0b-\x1f\x7f]")


def run(
    apps: str,
    slug: str,
    number: str,
    index: str,
    process: Any,
    wish: Any,
    env: Mapping[str, str],
    sockets: str,
    path: str,
) -> int:
    """Run the machine and stay its parent until it ends; returns its exit code. It takes requests from the socket
    `path` ("": none); `sockets`: the release's directory of sockets."""
    plan = planned(slug, process, wish, os.cpu_count() or 1, kvm=os.access(KVM, os.R_OK | os.W_OK))
    if missing := no_qemu() or no_firmware(plan.firmware):
        print(f"shipit: {missing}", flush=True)
        return 1
    if not plan.kvm:
        print(f"shipit: there is no {KVM} that this app may use: {SLOWER}.", flush=True)
    env = {**env, **({"PORT": str(plan.guest_port)} if plan.guest_port else {})}
    heirloom = None
    if wish.get("data"):
        if index != "1":
            print("shipit: an app whose machine has a data disk is one machine, web.1.", flush=True)
            return 1
        heirloom = Heirloom(f"{apps}/data", os.path.dirname(sockets), int(number), path, wish["data"])  # noqa: PTH120
    return Above(plan, env, path, heirloom, process["drain"]).stay()


class Above:
    """The parent of qemu: handles its console, its monitor and its front."""

    def __init__(self, plan: Plan, env: Mapping[str, str], path: str, heirloom: Heirloom | None, drain: float) -> None:
        self._plan, self._env, self._heirloom, self._drain = plan, env, heirloom, drain
        self._asked = False
        # Wakes select(2) when a signal comes.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        self._woken = reader
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, self._ask)
        self._listener = listening(path) if path else None
        self._front = 0

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True

    def stay(self) -> int:
        while True:
            if self._heirloom and not self._heirloom.take(self._woken, lambda: self._asked):
                return 0
            code, heir, why = self._one()
            if why and self._plan.kvm:
                print(f"shipit: {why}: {SLOWER}.", flush=True)
                # For the rest of this process. The next one tries KVM again: it may work by then.
                self._plan = self._plan._replace(kvm=False)
                if heir is None and not self._asked:
                    code, heir, why = self._one()
                    if why and not self._asked:
                        print("shipit: qemu did not start it without KVM either, so KVM is not the cause.", flush=True)
            if heir is None:
                return 0 if self._asked else code or 1
            # Another release has the app's data disk, and gets the requests, until it ends or this one is live.
            self._stand(lambda listener, _, address=heir.path: front.pass_on(listener, address))
            back = heir.wait(self._woken, lambda: self._asked)
            self._step_aside()
            if not back:
                return 0

    def _one(self) -> tuple[int, Any, str]:
        """Run the machine until it ends; returns qemu's exit code, the heir of the app's data disk (or None), and
        whether KVM failed or may have failed, in words."""
        ours, theirs = socket.socketpair()
        plan = self._plan._replace(
            port=front.free_port() if self._listener else 0,
            data=self._heirloom.file if self._heirloom else "",
            environment=self._written(),
            monitor=theirs.fileno(),
        )
        qemu = subprocess.Popen(
            plan.argv(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()], env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": "/var/tmp"},
        )  # fmt: skip
        theirs.close()
        assert qemu.stdout is not None
        monitor = Monitor(ours)
        heir = self._while_it_runs(qemu, qemu.stdout.fileno(), monitor, plan)
        self._step_aside()
        code = qemu.wait()
        qemu.stdout.close()
        ours.close()
        if heir:
            assert self._heirloom is not None
            self._heirloom.give(heir)
        # On a processor with broken KVM support qemu aborts, or ends before it has started the machine. It ends so for
        # other reasons, too: a disk that is none.
        if monitor.fault or code == -signal.SIGABRT:
            return code, heir, "KVM cannot run this machine, as qemu says above"
        if code != 0 and not monitor.started:
            return code, heir, "qemu did not start this machine with KVM, for the reason above"
        return code, heir, ""

    def _written(self) -> str:
        """Write the config vars to a file that only we and qemu can read; it is removed when qemu has read it."""
        path = f"/tmp/env-{os.getpid()}"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:  # noqa: PTH123
            file.write(environment(self._env))
        return path

    def _while_it_runs(self, qemu: Any, console: int, monitor: Monitor, plan: Plan) -> Any:
        lines = Lines()
        heir: Any = None
        pressed = probed = since = 0.0
        resumed = float("-inf")
        ready = not self._listener
        watched = [console, monitor.fileno(), self._woken, *([self._heirloom.fileno()] if self._heirloom else [])]
        while True:
            now = time.monotonic()
            ending = self._asked or heir
            if ending and monitor.started and now >= pressed + PRESS_AGAIN:
                monitor.tell("system_powerdown")
                pressed = now
            if heir and now >= since + self._drain:
                # As systemd does with a unit that does not stop.
                qemu.kill()
            if not ready and not ending and monitor.started and now >= probed + PROBE_EVERY:
                monitor.probe(plan.port)
                probed = now
            if monitor.full and now >= resumed + RESUME_EVERY:
                # qemu pauses a machine that writes when the disk is full, and does not resume it by itself.
                if now >= resumed + 2 * RESUME_EVERY:
                    print("shipit: the server's disk is full; the machine waits until there is room.", flush=True)
                monitor.tell("cont")
                resumed = now
            busy = not ready or ending or monitor.full
            found, _, _ = select.select(watched, [], [], PROBE_EVERY if busy else None)
            if self._woken in found:
                drained(self._woken)
            if monitor.fileno() in found and not monitor.read():
                watched.remove(monitor.fileno())
            if monitor.fault:
                qemu.kill()
            if console in found:
                read = os.read(console, 65536)
                lines.add(read)
                if not read:
                    return heir
            if monitor.started and plan.environment:
                os.unlink(plan.environment)  # noqa: PTH108
                plan = plan._replace(environment="")
            if not ready and monitor.listens and not ending:
                ready = True
                monitor.stop_probing()
                self._stand(lambda listener, caller, port=plan.port: front.stand_before(caller, listener, port))
            if self._heirloom and heir is None and self._heirloom.fileno() in found:
                asks = self._heirloom.fileno()
                heir = self._heirloom.asked()
                if heir:
                    watched.remove(asks)
                    since = time.monotonic()
                    # Requests wait from here on, for the next machine.
                    self._step_aside()

    def _stand(self, stand: Any) -> None:
        listener = self._listener
        if listener:
            self._front = front.forked(lambda caller: stand(listener, caller))

    def _step_aside(self) -> None:
        if self._front:
            os.kill(self._front, signal.SIGKILL)
            os.waitpid(self._front, 0)
            self._front = 0


class Lines:
    """The machine's console, line by line, as text."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, read: bytes) -> None:
        *whole, self._rest = (self._rest + read).split(b"\n")
        if len(self._rest) > LINE or not read:
            whole, self._rest = [*whole, self._rest], b""
        for line in whole:
            if text := _CONTROLS.sub(b"", line).rstrip():
                sys.stdout.buffer.write(text + b"\n")
        sys.stdout.buffer.flush()


def drained(reader: int) -> None:
    """Empty the pipe that woke us."""
    try:  # noqa: SIM105
        os.read(reader, 4096)
    except BlockingIOError:
        pass
