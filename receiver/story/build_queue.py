"""The line of the builds of all apps: so many run at once, first come, first served; who waits is told their place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.ledger.tickets import Ticket, drawn
from receiver.model import Release
from receiver.story.context import Host

# Seconds between two looks at who is before us.
TICK = 0.1


@contextmanager
def turn_to_build(host: Host, release: Release, *, wanted: bool) -> Iterator[None]:
    """Have one of the server's `builds` for the block, and wait for it before.

    Only where it is `wanted`: a build without a step just unpacks, and need not wait for minutes of somebody else's.
    """
    limit = host.settings.builds
    if not (wanted and limit):
        yield
        return
    with drawn(host.layout.builds, f"{release.app} {release.name}") as ticket:
        if ticket.before() >= limit:
            with host.say.timed("wait"):
                wait(host, ticket, limit)
        yield


def wait(host: Host, ticket: Ticket, limit: int) -> None:
    told = 0
    while (place := ticket.before() - limit + 1) > 0:
        if place != told:
            host.say.line(f"Waiting for builds of other apps: place {place} in the line, {limit} run at once")
            told = place
        time.sleep(TICK)
