"""Whether the names of the apps still lead to this machine."""

from __future__ import annotations

import pytest

from receiver.system import address


@pytest.mark.parametrize(
    ("mine", "domain", "leads", "now"),
    [
        # What install.sh chose, and the address is another one now.
        ("10.0.0.9", "10-0-0-5.sslip.io", "10.0.0.5", "10-0-0-9.sslip.io"),
        ("8.8.8.8", "9-9-9-9.sslip.io", "9.9.9.9", "8-8-8-8.sslip.io"),
        ("8.8.8.8", "apps.10.0.0.5.nip.io", "10.0.0.5", "8-8-8-8.nip.io"),
        # Still its own, though no longer the first one.
        ("10.0.0.9", "10-0-0-7.sslip.io", "", ""),
        # An address of the internet that is passed on to this machine.
        ("10.0.0.9", "9-9-9-9.sslip.io", "", ""),
        ("10.0.0.9", "apps.example.org", "", ""),
        ("10.0.0.9", "999-0-0-1.sslip.io", "", ""),
        ("", "10-0-0-5.sslip.io", "", ""),
    ],
)
def test_a_name_that_spells_another_machines_address_is_seen(
    monkeypatch: pytest.MonkeyPatch, mine: str, domain: str, leads: str, now: str
) -> None:
    monkeypatch.setattr(address, "primary_address", lambda: mine)
    monkeypatch.setattr(address, "is_own", lambda one: one in (mine, "10.0.0.7"))
    assert address.moved(domain) == (leads, now)


def test_an_address_is_this_machines_or_not() -> None:
    assert address.is_own("127.0.0.1") and not address.is_own("192.0.2.1")
