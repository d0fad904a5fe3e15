"""The addresses of this machine, and whether a name that spells an address (sslip.io) still spells one of them."""

from __future__ import annotations

import ipaddress
import re
import socket

# Services that resolve 203-0-113-7.sslip.io, and every name below it, to 203.0.113.7.
_SPELLED = re.compile(r"(?:.*[.-])?(\d{1,3}(?:[.-]\d{1,3}){3})\.(sslip\.io|nip\.io)", re.ASCII)


def primary_address() -> str:
    """The source address of IPv4 packets to the internet, "" without a route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return ""


def is_own(address: str) -> bool:
    """Whether this machine has the address."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def moved(domain: str) -> tuple[str, str]:
    """Where names below `domain` lead, and the domain that would lead here, if `domain` spells an address that this
    machine no longer has; else ("", "").

    A public address may belong to a router that forwards to this machine, which then has only a private one.
    """
    found = _SPELLED.fullmatch(domain)
    mine = primary_address() if found else ""
    if not found or not mine:
        return "", ""
    try:
        spelled = ipaddress.ip_address(found[1].replace("-", "."))
    except ValueError:
        return "", ""
    passed_on = spelled.is_global and not ipaddress.ip_address(mine).is_global
    if passed_on or is_own(str(spelled)):
        return "", ""
    return str(spelled), f"{mine.replace('.', '-')}.{found[2]}"
