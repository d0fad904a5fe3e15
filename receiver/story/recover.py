"""Before a release is made: finish or undo what a killed worker left behind."""

from __future__ import annotations

from receiver.model import Release
from receiver.story import verdict
from receiver.story.context import AppContext


def recover(context: AppContext, release: Release) -> None:
    """Make the ledger and the host consistent again; `release` is the one that is about to be made."""
    current = context.ledger.current_number()
    settled = release.number - 1
    for left in context.ledger.unfinished():
        if left.number == release.number or context.ledger.worker_lives(left.number):
            settled = min(settled, left.number - 1)
            continue
        if left.number == current:
            context.say.warn(f"The worker of {left.name} was killed after it went live; finishing its work.")
            verdict.live(context.ledger, left)
            context.agent.reconcile(context.ledger.app)
        elif left.number < release.number:
            context.say.warn(f"The worker of {left.name} was killed; removing what it left.")
            context.agent.take_away(context.ledger.app, left.number)
            verdict.failed(context.ledger, left, "The worker was killed.")
    context.ledger.settle(settled)
