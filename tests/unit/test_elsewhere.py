"""Names of apps that lead to another machine, told by doctor where it can know."""

from __future__ import annotations

import socket
import threading
import time
from ipaddress import ip_address

import pytest

from receiver.story import elsewhere

LOCAL, OTHER = "127.0.0.1", "198.51.100.7"


@pytest.mark.parametrize(
    ("addresses", "own", "told"),
    [
        ([OTHER], [LOCAL], True),
        ([OTHER, LOCAL], [LOCAL], False),
        ([LOCAL], [LOCAL], False),
        ([], [LOCAL], False),
        # Behind a router in one family: its address is not this machine's, and leads here.
        ([OTHER], ["2001:db8::5"], False),
        ([OTHER, "2001:db8::9"], [LOCAL, "2001:db8::5"], True),
    ],
)
def test_a_name_leads_elsewhere_if_none_of_its_addresses_is_this_machines(
    addresses: list[str], own: list[str], told: bool
) -> None:
    assert elsewhere.leads_elsewhere([*map(ip_address, addresses)], [*map(ip_address, own)]) is told


def test_a_name_server_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"known.test": [LOCAL]}
    hangs = threading.Event()

    def getaddrinfo(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if name == "slow.test":
            hangs.wait(30)
        if name not in answers:
            raise socket.gaierror(-2, "Name or service not known")
        return [(2, 1, 6, "", (address, 80)) for address in answers[name]]

    monkeypatch.setattr(elsewhere, "PATIENCE", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    try:
        found = elsewhere.resolved(["known.test", "slow.test", "unknown.test"])
    finally:
        hangs.set()
    assert found == {"known.test": [ip_address(LOCAL)]}
    assert time.monotonic() - began < 15
