"""Before a release is made: finish or undo what a killed worker left behind."""

from __future__ import annotations

from receiver.model import Release, Status
from receiver.story.context import Host


def recover(host: Host, release: Release) -> None:
    """Make the ledger and the host whole again; `release` is the one that is about to be made."""
    current = host.ledger.current_number()
    settled = release.number - 1
    for left in host.ledger.unfinished():
        if left.number == release.number or host.ledger.worker_lives(left.number):
            settled = min(settled, left.number - 1)
            continue
        if left.number == current:
            host.say.warn(f"The worker of {left.name} was killed after it went live; finishing its work.")
            host.ledger.finish(left, Status.LIVE)
            host.agent.reconcile(host.ledger.app)
        elif left.number < release.number:
            host.say.warn(f"The worker of {left.name} was killed; removing what it left.")
            host.agent.take_away(host.ledger.app, left.number)
            host.ledger.finish(left, Status.FAILED, "The worker was killed.")
    host.ledger.settle(settled)
