"""Behind the timer that renews certificates (templates/systemd/shipit-certificates-tell.service): what became of them is
told, of all apps.
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
        # One that is damaged keeps nobody from being told of the others; doctor tells of it.
        with suppress(Failure):
            verdict.certificates(Ledger(layout.app(app)))
    return 0
