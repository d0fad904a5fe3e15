"""`tls:` of shipit.yml, and certificates for the names that a release brings. The rest of HTTPS is in
proxy/certificates.py (what is installed, and what to ask for) and root/certificates.py (asking and installing).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from receiver import settings
from receiver.ledger.ledger import FILE_MODE, Ledger
from receiver.manifest.section import Said
from receiver.model import Https
from receiver.names import Domain
from receiver.ops.base import Event, What
from receiver.proxy.certificates import MAX_HSTS, Certificates, Tls, patient, wanting
from receiver.proxy.vhost import domains
from receiver.records import Record
from receiver.system import disk


class TlsCapability:
    """See ops/base.py. A release with a name that has no certificate goes live first, and then gets the certificate."""

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
        # Imported here, because most releases need none.
        from receiver.root.client import Agent

        output = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        with Agent.connect(ledger.paths.layout.agent_socket) as agent:
            agent.certify(ledger.app, output, now=False)


def news(ledger: Ledger) -> list[str]:
    """New problems with the app's certificates since the last call, for a notification."""
    path = ledger.paths.told_certificates
    found = troubles(ledger)
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        before = {}
    kinds = {name: kind for name, (kind, _) in found.items()}
    if kinds == before:
        return []
    disk.write_atomically(path, json.dumps(kinds).encode(), FILE_MODE)
    return [reason for name, (kind, reason) in found.items() if before.get(name) != kind]


def troubles(ledger: Ledger) -> dict[Domain, tuple[str, str]]:
    """By name: the kind of its problem, and the text for it. Names without a problem, or without HTTPS, are left
    out."""
    known, state, now = settings.load(ledger.paths.layout.settings), ledger.state(), time.time()
    if state.https is Https.OFF or not ledger.paths.tls.is_dir():
        return {}
    store = Certificates(ledger.paths)
    found = {}
    for name in domains(ledger.app, state, ledger.current(), known):
        one, why = store.serving(name, now), store.last_try(name).why
        behind = f": {why}" if why else ""
        if one is None:
            if why:
                found[name] = "none", f"no certificate for {name}{behind}"
            continue
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.not_after))
        if now >= one.not_after:
            found[name] = "expired", f"the certificate for {name} expired on {until}{behind}"
        elif one.late(now):
            found[name] = "late", f"the certificate for {name} expires on {until}, and there is no next one{behind}"
        elif why:
            found[name] = "failed", f"no new certificate for {name}, whose old one serves until {until}{behind}"
    return found
