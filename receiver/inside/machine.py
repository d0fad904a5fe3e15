"""A virtual machine as the process of a release: qemu, started by the launcher, as the app's user, in the unit's cage.

The disk is that of the slug, which nobody here can write: what the machine writes lies in a file of qemu's without a
name and goes with the process. `Plan` is what qemu is told. We stay above it: its serial console is our output, SIGTERM
becomes its power button, and what is before it (front.py) takes requests from the moment on that something in the
machine listens. A disk of the app's own goes from release to release (heirloom.py).
Whether KVM runs the machine is only known when it has been tried: where it fails, qemu translates the machine instead.
Only the standard library.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from receiver.inside import front
from receiver.inside.container import listening
from receiver.inside.diskimage import INSTALL, UEFI, UEFI_VARIABLES, no_firmware
from receiver.inside.heirloom import Heirloom

QEMU = "/usr/bin/qemu-system-x86_64"
KVM = "/dev/kvm"
SLOWER = "qemu translates the machine (TCG), about ten times slower"
NO_COMMANDS = "shipit: a virtual machine has its own commands only: log in to it as to any machine."
# A systemd in the machine has it as the credential shipit.env; any Linux in /sys/firmware/qemu_fw_cfg.
CREDENTIAL = "opt/io.systemd.credentials/shipit.env"
PORT = 80
MEMORY, MOST_CPUS = 512, 4  # MiB; without a limit of the process
TRANSLATED = 128  # MiB of translated code, where there is no KVM
PRESS_AGAIN = 5.0  # s; a machine that is just starting does not feel its power button
PROBE_EVERY = 0.5
RESUME_EVERY = 5.0
LINE = 4096
# What programs write on a console to move about and to colour, and every other byte that is no text.
_CONTROLS = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_]|[()][0-9A-B])|[\x00-\x08\x0b-\x1f\x7f]")


class Plan(NamedTuple):
    """`port`: of 127.0.0.1, which leads to the machine's `guest_port` (0: none does). `data`: a disk of the app's own
    ("": none). `environment`: the file with its config vars. `monitor`: a descriptor on which qemu is spoken to."""

    base: str
    firmware: str
    memory: int
    cpus: int
    kvm: bool
    port: int
    guest_port: int
    data: str
    environment: str
    monitor: int

    def argv(self) -> list[str]:
        forward = f",hostfwd=tcp:127.0.0.1:{self.port}-:{self.guest_port}" if self.port else ""
        words = [
            # Nothing but what is named here: no configuration of the server's, no display, no floppy.
            QEMU, "-nodefaults", "-no-user-config", "-display", "none",
            # A machine that restarts itself is a process that ended: it is started as its release began.
            "-no-reboot",
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine", "q35",
            "-accel", "kvm" if self.kvm else f"tcg,thread=multi,tb-size={TRANSLATED}",
            "-cpu", "host" if self.kvm else "max",
            "-m", str(self.memory), "-smp", str(self.cpus),
            "-drive", f"if=none,id=system,file={self.base},format=qcow2,snapshot=on,discard=unmap",
            "-device", "virtio-blk-pci,drive=system,serial=system,bootindex=0",
            "-netdev", f"user,id=net{forward}",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci",
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-chardev", f"socket,id=monitor,fd={self.monitor}", "-mon", "chardev=monitor,mode=control",
            "-fw_cfg", f"name={CREDENTIAL},file={self.environment}",
        ]  # fmt: skip
        if self.data:
            words += ["-drive", f"if=none,id=data,file={self.data},format=raw,discard=unmap"]
            words += ["-device", "virtio-blk-pci,drive=data,serial=data"]
        if self.firmware == "uefi":
            words += ["-drive", f"if=pflash,format=raw,readonly=on,file={UEFI}"]
            words += ["-drive", f"if=pflash,format=raw,snapshot=on,file={UEFI_VARIABLES}"]
        return words


def planned(slug: str, process: Any, wish: Any, cpus: int, *, kvm: bool) -> Plan:
    """What a release says of its machine: the limits of its process, its section `vm`, the disk in its slug."""
    with open(f"{slug}/.disk/disk.json") as file:  # noqa: PTH123
        stored = json.load(file)
    limits = process["limits"]
    listens = process["listen"] != "none"
    return Plan(
        base=f"{slug}/.disk/base.qcow2",
        firmware=wish.get("firmware") or stored["firmware"],
        memory=limits["memory"] or MEMORY,
        cpus=-(-limits["cpu"] // 100) or min(cpus, MOST_CPUS),
        kvm=kvm,
        port=0,
        guest_port=(wish.get("port") or PORT) if listens else 0,
        data="",
        environment="",
        monitor=-1,
    )


def environment(env: Mapping[str, str]) -> str:
    """NAME="value" lines as systemd's EnvironmentFile= and every shell read them."""
    escaped = {name: re.sub(r'(["\\$`])', r"\\\1", value) for name, value in sorted(env.items())}
    return "".join(f'{name}="{value}"\n' for name, value in escaped.items())


def no_qemu() -> str:
    if os.path.exists(QEMU):  # noqa: PTH110
        return ""
    return f"This server has no qemu any more. On the server, once, as root: {INSTALL} qemu-system-x86"


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
    """Run the machine and stay above it until it ends; returns its exit code. It takes requests from the socket `path`
    ("": none); `sockets`: the release's directory for those."""
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
    """We, who stay above qemu: its console, its monitor, what is before it."""

    def __init__(self, plan: Plan, env: Mapping[str, str], path: str, heirloom: Heirloom | None, drain: float) -> None:
        self._plan, self._env, self._heirloom, self._drain = plan, env, heirloom, drain
        self._asked = False
        # A signal wakes select(2).
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
            code, heir, failed = self._one()
            if failed:
                print(f"shipit: KVM cannot run this machine, as qemu says above: {SLOWER}.", flush=True)
                # As long as we live. The next process tries KVM again: what it lacked may have come.
                self._plan = self._plan._replace(kvm=False)
                if heir is None and not self._asked:
                    code, heir, _ = self._one()
            if heir is None:
                return 0 if self._asked else code or 1
            # Another release has the disk of the app, and the requests, until it ends or is live.
            self._stand(lambda listener, _, address=heir.path: front.pass_on(listener, address))
            back = heir.wait(self._woken, lambda: self._asked)
            self._step_aside()
            if not back:
                return 0

    def _one(self) -> tuple[int, Any, bool]:
        """Run the machine until it ends; returns qemu's exit code, who is to have the disk of the app next, and whether
        it was KVM that failed."""
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
        # Where a processor cannot do all that it promises, qemu ends before it has started the machine, or aborts.
        failed = plan.kvm and (monitor.fault or code == -signal.SIGABRT or (code != 0 and not monitor.started))
        return code, heir, failed

    def _written(self) -> str:
        """The config vars in a file that only we and qemu see; it is removed when qemu has read it."""
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
                # As systemd does it to one that is told to end.
                qemu.kill()
            if not ready and not ending and monitor.started and now >= probed + PROBE_EVERY:
                monitor.probe(plan.port)
                probed = now
            if monitor.full and now >= resumed + RESUME_EVERY:
                # qemu stops a machine that writes where there is no room, and does not go on by itself.
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
                    # Requests wait from here on, for the machine that comes.
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


class Monitor:
    """qemu's monitor (QMP: a JSON object a line)."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._rest = b""
        self._probes: list[socket.socket] = []
        self._forward = ""
        # It answers, which it does when it has read all that it was told to.
        self.started = False
        # Whether something in the machine has taken a connection of ours.
        self.listens = False
        # The machine stands still for ever: KVM gave up on what it had to do.
        self.fault = False
        # It waits for room on the server's disk, for what it writes.
        self.full = False

    def fileno(self) -> int:
        return self._pipe.fileno()

    def read(self) -> bool:
        """Take what it says; False when it says no more."""
        try:
            said = self._pipe.recv(65536)
        except OSError:
            said = b""
        *whole, self._rest = (self._rest + said).split(b"\n")
        for line in whole:
            heard = json.loads(line)
            if "QMP" in heard:
                self.tell("qmp_capabilities")
            elif isinstance(heard.get("return"), str):
                self._look(heard["return"])
            elif heard.get("event") == "STOP":
                self.tell("query-status")
            elif heard.get("event") == "RESUME":
                self.full = False
            elif "return" in heard:
                self.started = True
                status = heard["return"].get("status")
                self.fault = self.fault or status == "internal-error"
                self.full = self.full or status == "io-error"
        return bool(said)

    def tell(self, command: str, **arguments: str) -> None:
        with_them = {"arguments": arguments} if arguments else {}
        try:  # noqa: SIM105
            self._pipe.sendall(json.dumps({"execute": command, **with_them}).encode() + b"\n")
        except OSError:
            pass  # it is ending

    def probe(self, port: int) -> None:
        """Connect, and ask what became of it: qemu itself takes every connection, whoever listens behind it."""
        self._forward = str(port)
        probe = socket.socket()
        probe.setblocking(False)
        probe.connect_ex(("127.0.0.1", port))
        self._probes.append(probe)
        self.tell("human-monitor-command", **{"command-line": "info usernet"})

    def stop_probing(self) -> None:
        while self._probes:
            self._probes.pop().close()

    def _look(self, table: str) -> None:
        rows = [row.split() for row in table.splitlines()]
        if any(row[:1] == ["TCP[ESTABLISHED]"] and self._forward in row for row in rows):
            self.listens = True
        # Each of ours is asked about once; one that waits for an answer longer would get it late.
        while len(self._probes) > 4:
            self._probes.pop(0).close()


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
    """Take what has woken us."""
    try:  # noqa: SIM105
        os.read(reader, 4096)
    except BlockingIOError:
        pass
