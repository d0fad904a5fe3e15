"""Runs after the timer that renews certificates (templates/systemd/shipit-certificates-tell.service): sends the events
about the certificates of all apps.
"""

from __future__ import annotations

from contextlib import suppress

from receiver.errors import Failure
from receiver.ledger.ledger import Ledger, apps
from receiver.paths import Layout
from receiver.story import verdict


def main() -> int:
    layout = Layout()
    for app in apps(layout):
        # A damaged app must not keep others from being told of; doctor reports it.
        with suppress(Failure):
            verdict.certificates(Ledger(layout.app(app)))
    return 0
