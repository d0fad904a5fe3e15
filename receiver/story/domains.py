"""Who answers to a domain: one app each, decided under one lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from receiver.errors import Rejected
from receiver.ledger.ledger import Ledger, apps
from receiver.names import AppName, Domain
from receiver.paths import Layout
from receiver.settings import Settings, default_domain
from receiver.system import disk


@contextmanager
def claiming(layout: Layout, app: AppName, wanted: Sequence[Domain], settings: Settings) -> Iterator[None]:
    """Hold the lock over all domains; raises Rejected when another app has one of `wanted`. Nothing is changed."""
    with disk.locked(layout.domains_lock, wait=True):
        for other in apps(layout):
            taken = [name for name in wanted if other != app and name in owned(layout, other, settings)]
            if taken:
                raise Rejected(
                    f"The domain {taken[0]} belongs to {other}.",
                    hint=f"Take it away first: shipit domains:remove {other} {taken[0]}",
                )
        yield


def owned(layout: Layout, app: AppName, settings: Settings) -> set[str]:
    """What an app answers to: its domains, and the default name that nobody else may have."""
    return {*Ledger(layout.app(app)).state().domains, default_domain(app, settings)}


def claim_domains(layout: Layout, ledger: Ledger, wanted: Sequence[Domain], settings: Settings) -> None:
    """Give an app these domains besides those it has; raises Rejected when one belongs to another app."""
    have = ledger.state().domains
    new = tuple(name for name in wanted if name not in have)
    if new:
        with claiming(layout, ledger.app, new, settings):
            ledger.change_state(lambda state: replace(state, domains=(*state.domains, *new)))
