"""Commits that were pushed."""

from __future__ import annotations

import re
from itertools import chain

from receiver import names
from receiver.errors import Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Origin, Release, Status
from receiver.names import Branch, Oid
from receiver.sources.base import Base, Stored, commit_of, of_history

_SHORT = re.compile(r"[0-9a-f]{7,64}", re.ASCII)


class GitSource(Stored):
    """The source of what `git push` brought."""

    kind = "git"

    def base(self, origin: Origin) -> Base:
        return of_history(self.commits, commit_of(origin))

    def origin(self, oid: Oid, branch: Branch) -> Origin:
        """The origin of a release of this commit."""
        commit = self.commits.commit(oid)
        return Origin(self.kind, oid, title=commit.subject, author=commit.author, ref=branch)

    def named(self, what: str, deployed: Branch | None) -> Origin:
        """The origin for a branch, a tag or a commit's id (at least 7 digits); raises Rejected if it is not stored.

        `deployed`: the deploy branch, which is at the live commit.
        """
        named = f"refs/heads/{what}", f"refs/tags/{what}"
        ids = [what] if names.is_oid(what) or _SHORT.fullmatch(what) else []
        tried = [*(ref for ref in named if names.is_branch(what)), *ids]
        for name in tried:
            if oid := self.commits.git.commit_of(name):
                commit = self.commits.commit(oid)
                return Origin(self.kind, oid, title=commit.subject, author=commit.author, ref=deployed or "")
        raise Rejected(
            f"{what[:60]!a} is no release, branch, tag or commit that is stored here.",
            hint="See which releases there are: shipit releases APP    Store a commit: git push -o no-deploy",
        )

    def follow(self, live: Release) -> str:
        """Put the branch at the live commit, so that any other commit can be pushed next."""
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
    """The commit where the deploy branch belongs: the live one; if the live release did not come by a push, the last
    one before it that did and went live. None before the first."""
    current = ledger.current()
    if current is None:
        return None
    before = (r for r in ledger.newest_first() if r.number < current.number and r.status is Status.LIVE)
    return next((commit for release in chain([current], before) if (commit := pushed_to(release)[1])), None)


def pushed_to(live: Release) -> tuple[Branch | None, Oid | None]:
    """The branch that a release was pushed to, and its commit; None for a release that came another way."""
    origin = live.origin
    if origin is None or origin.kind != GitSource.kind or not origin.ref:
        return None, None
    return names.branch(origin.ref), origin.commit
