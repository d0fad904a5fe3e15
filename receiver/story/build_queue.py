"""The queue of the builds of all apps: `builds` of them run at once, first come, first served; a waiting pusher sees
its place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.ledger.tickets import Ticket, drawn
from receiver.model import Release
from receiver.story.context import AppContext

# Seconds between two looks at who is ahead in the queue.
TICK = 0.1


@contextmanager
def turn_to_build(context: AppContext, release: Release, *, wanted: bool) -> Iterator[None]:
    """Wait for one of the server's `builds` slots, and hold it for the block.

    Only if `wanted`: a build without steps just unpacks, and need not wait minutes for other apps' builds.
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
