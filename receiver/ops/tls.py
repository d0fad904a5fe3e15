"""`tls:` of shipit.yml, and certificates for the names that a release brings. The rest of HTTPS is proxy/certificates.py
(what is installed, and which one to ask for) and root/certificates.py (asking and installing).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from receiver import settings
from receiver.manifest.section import Said
from receiver.ops.base import Event, What
from receiver.proxy.certificates import MAX_HSTS, Certificates, Tls, patient, wanting
from receiver.proxy.vhost import domains
from receiver.records import Record


class TlsCapability:
    """See ops/base.py. A release that goes live with a name that has no certificate gets one behind its verdict."""

    key = "tls"
    schema: Mapping[str, Any] = {
        "type": "object", "additionalProperties": False,
        "description": "How browsers are told to use HTTPS. Certificates: docs/tls.md",
        "properties": {
            "hsts": {
                "type": "integer", "minimum": 0, "maximum": MAX_HSTS,
                "description": "For so many seconds browsers shall ask for the app by HTTPS alone; 0: not",
            },
        },
    }  # fmt: skip
    kept: type[Record] = Tls
    hears = frozenset({What.LIVE})

    def read(self, said: Said) -> Tls | None:
        return Tls(said.data["hsts"]) if said.data.get("hsts") else None

    def on(self, event: Event) -> None:
        ledger = event.ledger
        known, state, now = settings.load(ledger.paths.layout.settings), ledger.state(), time.time()
        store = Certificates(ledger.paths)
        names = domains(ledger.app, state, ledger.current(), known)
        if not patient(store, wanting(store, state, names, known, now), now):
            return
        # Here, because most releases need none.
        from receiver.root.client import Agent

        output = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        with Agent.connect(ledger.paths.layout.agent_socket) as agent:
            agent.certify(ledger.app, output, now=False)
