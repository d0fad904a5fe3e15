"""The queue of the builds of all apps: so many run at once, first come, first served; who waits is told their place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.ledger.tickets import Ticket, drawn
from receiver.model import Release
from receiver.story.context import AppContext

# Seconds between two looks at who is before us.
TICK = 0.1


@contextmanager
def turn_to_build(context: AppContext, release: Release, *, wanted: bool) -> Iterator[None]:
    """Have one of the server's `builds` for the block, and wait for it before.

    Only where it is `wanted`: a build without a step just unpacks, and need not wait for minutes of somebody else's.
    """
    limit = context.settings.builds
    if not (wanted and limit):
        yield
        return
    with drawn(context.layout.builds, f"{release.app} {release.name}") as ticket:
        if ticket.before() >= limit:
            with context.say.timed("wait"):
                wait(context, ticket, limit)
        yield


def wait(context: AppContext, ticket: Ticket, limit: int) -> None:
    told = 0
    while (place := ticket.before() - limit + 1) > 0:
        if place != told:
            context.say.line(f"Waiting for builds of other apps: place {place} in the line, {limit} run at once")
            told = place
        time.sleep(TICK)
