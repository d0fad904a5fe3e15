"""One bridge for all hosts, and for each host a slot: a number that is its address, names and lock.

A slot is claimed by locking its file for as long as the process that uses it lives. So whoever can lock a slot
may clear away what a killed run has left in it: nothing else has to be remembered.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .base import CACHE, RUN, LabError, Result, locked, run, try_lock

NETWORK = ipaddress.IPv4Network(os.environ.get("SHIPIT_TEST_NETWORK", "10.231.0.0/24"))
GATEWAY = NETWORK[1]
BRIDGE = "shiplab"
SLOTS = range(1, 100)


class Slot:
    """A place for one host: address, network namespace, control groups, directory."""

    def __init__(self, number: int, handle: int) -> None:
        self.number = number
        self.handle = handle

    @classmethod
    def claim(cls) -> Slot:
        for number in SLOTS:
            handle = try_lock(RUN / f"slot-{number}")
            if handle is not None:
                slot = cls(number, handle)
                slot.clear()
                return slot
        raise LabError(f"all {len(SLOTS)} places of the lab are taken")

    @property
    def name(self) -> str:
        return f"{BRIDGE}-{self.number}"

    @property
    def ip(self) -> str:
        return str(NETWORK[10 + self.number])

    @property
    def namespace(self) -> Path:
        return Path("/run/netns") / self.name

    @property
    def directory(self) -> Path:
        return CACHE / "hosts" / str(self.number)

    def plug(self) -> None:
        """A network namespace with one cable to the bridge."""
        bridge()
        mtu = outer_mtu()
        ip("netns", "add", self.name)
        # Whoever has this address has this hardware address: nobody's neighbour table is ever wrong.
        near = ("link", "add", self.name, "mtu", mtu, "type", "veth")
        ip(*near, "peer", "name", "host0", "address", hardware(self.number), "mtu", mtu, "netns", self.name)
        ip("neigh", "flush", "to", self.ip, "dev", BRIDGE, check=False)
        ip("link", "set", self.name, "master", BRIDGE, "up")
        ip("-n", self.name, "addr", "add", f"{self.ip}/{NETWORK.prefixlen}", "dev", "host0")
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "link", "set", "host0", "up")
        ip("-n", self.name, "route", "add", "default", "via", str(GATEWAY))

    def groups(self, *, limits: bool = False) -> list[Path]:
        """Control groups of the host's own; with limits, one below every controller of version 1."""
        made = []
        for kind, mount in hierarchies():
            if kind == "controller" and not limits:
                continue
            group = mount / self.name
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (mount / name).exists() and kind == "controller":
                    (group / name).write_text((mount / name).read_text())
            made.append(group)
        return made

    def kill(self) -> list[Path]:
        """Every process in the slot's control groups ends; the groups are handed back."""
        groups = [mount / self.name for _, mount in hierarchies() if (mount / self.name).exists()]
        deadline = time.monotonic() + 20
        while processes := {pid for group in groups for pid in members(group)}:
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise LabError(f"processes of {self.name} outlive SIGKILL: {sorted(processes)}")
            time.sleep(0.01)
        return groups

    def clear(self) -> None:
        """Nothing of an earlier host remains: no process, mount, network, group or file."""
        groups = self.kill()
        for group in groups:
            remove_group(group)
        for place in ("root", "disk"):
            while (self.directory / place).is_mount():
                run(["umount", "-l", self.directory / place])
        if Path("/sys/class/net", self.name).exists():
            ip("link", "del", self.name, check=False)
        if self.namespace.exists():
            ip("netns", "del", self.name, check=False)
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def release(self) -> None:
        self.clear()
        os.close(self.handle)


def sweep() -> None:
    """Clear away what killed runs have left; without any host in use, the bridge as well."""
    with locked(RUN / "bridge.lock"):
        busy = False
        for path in RUN.glob("slot-*"):
            handle = try_lock(path)
            if handle is None:
                busy = True
                continue
            Slot(int(path.name.removeprefix("slot-")), handle).release()
        if not busy:
            remove_bridge()


def ip(*words: str, check: bool = True) -> Result:
    return run(["ip", *words], check=check)


def bridge() -> None:
    """The bridge, its address, and masquerading for what leaves it."""
    with locked(RUN / "bridge.lock"):
        if not Path("/sys/class/net", BRIDGE).exists():
            ip("link", "add", BRIDGE, "address", hardware(0), "mtu", outer_mtu(), "type", "bridge")
        if str(GATEWAY) not in ip("-o", "-4", "addr", "show", "dev", BRIDGE).out:
            ip("addr", "add", f"{GATEWAY}/{NETWORK.prefixlen}", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        forward = Path("/proc/sys/net/ipv4/ip_forward")
        before = RUN / "ip_forward"
        if not before.exists():
            before.write_text(forward.read_text())
        forward.write_text("1\n")
        if run(["nft", "list", "table", "ip", BRIDGE], check=False).code != 0:
            rules = f"""
                table ip {BRIDGE} {{
                    chain untracked_in {{
                        type filter hook prerouting priority raw
                        ip saddr {NETWORK} ip daddr {NETWORK} notrack
                    }}
                    chain untracked_out {{
                        type filter hook output priority raw
                        ip daddr {NETWORK} notrack
                    }}
                    chain out {{
                        type nat hook postrouting priority 100
                        ip saddr {NETWORK} ip daddr != {NETWORK} masquerade
                    }}
                }}
            """
            run(["nft", "-f", "-"], input=rules)


def remove_bridge() -> None:
    """The machine's network is as it was before the lab."""
    if Path("/sys/class/net", BRIDGE).exists():
        ip("link", "del", BRIDGE)
    if shutil.which("nft"):
        run(["nft", "delete", "table", "ip", BRIDGE], check=False)
    before = RUN / "ip_forward"
    if before.exists():
        Path("/proc/sys/net/ipv4/ip_forward").write_text(before.read_text())
        before.unlink()


def hardware(number: int) -> str:
    return f"02:73:68:69:70:{number:02x}"


def outer_mtu() -> str:
    """The cable must not promise more than the way out can carry."""
    words = ip("-o", "route", "show", "default", check=False).out.split()
    device = words[words.index("dev") + 1] if "dev" in words else "lo"
    return str(min(1500, int(Path("/sys/class/net", device, "mtu").read_text())))


def hierarchies() -> Iterator[tuple[str, Path]]:
    """Every mounted control group hierarchy: `unified`, `named` (systemd's own) or a `controller`."""
    seen = set()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        if not kind.startswith("cgroup") or mount in seen:
            continue
        seen.add(mount)
        if kind == "cgroup2":
            yield "unified", Path(mount)
        elif "name=systemd" in options.split(","):
            yield "named", Path(mount)
        elif "name=" not in options:
            yield "controller", Path(mount)


def members(group: Path) -> Iterator[int]:
    for path, _, _ in os.walk(group):
        with suppress(OSError):
            yield from (int(pid) for pid in Path(path, "cgroup.procs").read_text().split() if pid != "0")


def remove_group(group: Path) -> None:
    """A group and the groups below it; the kernel may need a moment after the last process."""
    deadline = time.monotonic() + 5
    while True:
        try:
            for path, _, _ in os.walk(group, topdown=False):
                Path(path).rmdir()
        except FileNotFoundError:
            if not group.exists():
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
