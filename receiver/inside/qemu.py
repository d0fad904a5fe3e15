"""qemu's arguments for a virtual machine, as a value. Standard library only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from receiver.inside.diskimage import INSTALL, UEFI, UEFI_VARIABLES

QEMU = "/usr/bin/qemu-system-x86_64"
# systemd in the machine reads this as the credential shipit.env; any Linux has it in /sys/firmware/qemu_fw_cfg.
CREDENTIAL = "opt/io.systemd.credentials/shipit.env"
PORT = 80
MEMORY, MOST_CPUS = 512, 4  # memory in MiB; both if the process has no limit
TRANSLATED = 128  # MiB for translated code, if there is no KVM


class Plan(NamedTuple):
    """`port`: of 127.0.0.1, forwarded to the machine's `guest_port` (0: none). `data`: the app's data disk ("": none).
    `environment`: the file with its config vars. `monitor`: the descriptor of qemu's monitor."""

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
            # Only what is named here: no configuration of the server's, no display, no floppy.
            QEMU, "-nodefaults", "-no-user-config", "-display", "none",
            # If the machine reboots itself, qemu ends, so the release starts again from its own disk.
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
    """The plan from the limits of the process, the release's section `vm`, and the disk in its slug."""
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
