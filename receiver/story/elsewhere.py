"""Finds names of apps whose DNS leads to another machine. This is only known on a machine that has a public address and
no proxy in front of it that names lead to on purpose."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from receiver.errors import Failure
from receiver.ledger.ledger import Ledger, apps
from receiver.names import AppName
from receiver.paths import Layout
from receiver.proxy.vhost import domains
from receiver.settings import Settings
from receiver.story.finding import Finding
from receiver.system.address import is_own

Address = IPv4Address | IPv6Address
# An address of each family that no packet is sent to: they are only used to find the route.
TOWARDS = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
PATIENCE = 5.0  # seconds for all answers of DNS together
MOST = 200  # names that are looked up: each takes a thread


def names_elsewhere(layout: Layout, settings: Settings) -> Iterator[Finding]:
    """A finding for each name that leads only to other machines. A name without an address is not reported."""
    own = [one for family in TOWARDS if (one := own_address(family)) and one.is_global]
    if not own or settings.trusted_proxies:
        return
    names: dict[str, AppName] = {}
    for app in apps(layout):
        with suppress(Failure):
            ledger = Ledger(layout.app(app))
            found = domains(app, ledger.state(), ledger.current(), settings)
            names.update({name: app for name in found if not name.startswith("*")})
    for name, addresses in resolved([*names]).items():
        if leads_elsewhere(addresses, own):
            there, here = (", ".join(sorted(map(str, some))) for some in (addresses, own))
            hint = f"Have its DNS lead here ({here}), or take it away: shipit domains:remove {names[name]} {name}"
            yield Finding(names[name], f"{name} leads to {there}, which is not this machine", False, hint)


def leads_elsewhere(addresses: Sequence[Address], own: Sequence[Address]) -> bool:
    """Whether none of a name's addresses is this machine's. If this machine has no own address of a family, an address
    of that family does not count: it may belong to a router in front of it."""
    known = {one.version for one in own}
    return bool(addresses) and all(one.version in known and not is_own(str(one)) for one in addresses)


def own_address(family: socket.AddressFamily) -> Address | None:
    """The source address of packets to the internet."""
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((TOWARDS[family], 9))
        return ip_address(probe.getsockname()[0])
    return None


def resolved(names: Sequence[str]) -> dict[str, list[Address]]:
    """The addresses in DNS of the first MOST names, within PATIENCE; names that DNS does not know are left out."""
    found: dict[str, list[Address]] = {}

    def ask(name: str) -> None:
        with suppress(OSError, ValueError):
            entries = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
            found[name] = [ip_address(entry[4][0]) for entry in entries]

    # Daemon threads: the process can end while a name server does not answer.
    asking = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names[:MOST]]
    for thread in asking:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in asking:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)
