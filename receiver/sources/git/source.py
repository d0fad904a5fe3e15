"""Commits that were pushed."""

from __future__ import annotations

from itertools import chain

from receiver import names
from receiver.ledger.ledger import Ledger
from receiver.model import Origin, Release, Status
from receiver.names import Branch, Oid
from receiver.sources.base import Stored


class GitSource(Stored):
    """What `git push` brought."""

    kind = "git"

    def origin(self, oid: Oid, branch: Branch) -> Origin:
        """What a release of this commit says of where it came from."""
        commit = self.commits.commit(oid)
        return Origin(self.kind, oid, title=commit.subject, author=commit.author, ref=branch)

    def follow(self, live: Release) -> str:
        """Put the branch at the live commit, so that a push of any other is one."""
        branch, commit = pushed_to(live)
        if branch and commit and self.commits.git.put_back(branch, commit):
            return f"branch {branch} put back to {commit[:8]}"
        return ""

    def astray(self, live: Release) -> str:
        branch, commit = pushed_to(live)
        if branch and commit and self.commits.branch(branch) != commit:
            return f"branch {branch} is not the live commit"
        return ""


def last_pushed(ledger: Ledger) -> Oid | None:
    """The commit that the deploy branch is at: the live one, or, where that came in another way, the last before it
    that was pushed and live. None before the first."""
    current = ledger.current()
    if current is None:
        return None
    before = (r for r in ledger.newest_first() if r.number < current.number and r.status is Status.LIVE)
    return next((commit for release in chain([current], before) if (commit := pushed_to(release)[1])), None)


def pushed_to(live: Release) -> tuple[Branch | None, Oid | None]:
    """The branch that a release was pushed to, and its commit; None for one that came in by another way."""
    origin = live.origin
    if origin is None or origin.kind != GitSource.kind or not origin.ref:
        return None, None
    return names.branch(origin.ref), origin.commit
