"""Commits that were fetched from another repository (`git:sync`)."""

from __future__ import annotations

from receiver.model import Origin
from receiver.names import Oid
from receiver.sources.base import Base, Stored, commit_of, of_history
from receiver.sources.git.receive import REF, Check, received
from receiver.sources.git.repository import Git, environment
from receiver.system.run import run


class PullSource(Stored):
    """The source of what `git:sync` brought. It does not move the deploy branch, which stays at the last pushed
    commit."""

    kind = "pull"

    def base(self, origin: Origin) -> Base:
        return of_history(self.commits, commit_of(origin))

    def take(self, other: Git, oid: Oid, ref: str, check: Check) -> Origin:
        """Copy a commit from another repository on this machine; if `check` raises, nothing is kept.

        The caller has the app's turn.
        """
        local = environment({"protocol.file.allow": "always"})
        words = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--", f"file://{other.repo}"]

        def fill(git: Git) -> None:
            other.run("update-ref", REF, oid)
            run(git.argv(*words, f"+{REF}:{REF}"), env=local)

        received(self.paths.repo, fill, check)
        commit = self.commits.commit(oid)
        shown = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return Origin(self.kind, oid, title=commit.subject, author=commit.author, ref=shown)
