"""The files of a user's directory, committed or not, as `shipit deploy` sends them from a laptop (client/deploy.py).

They arrive by git, as a new commit at REF. That is no branch, so the deploy branch does not move.
"""

from __future__ import annotations

import re

from receiver.model import Origin
from receiver.names import Oid
from receiver.sources.base import Base, Stored, commit_of, of_history

REF = "refs/deploy/files"
_BASE = re.compile(r"^Shipit-Base: ([0-9a-f]{40}(?:[0-9a-f]{24})?)$", re.MULTILINE)
_DIRTY = re.compile(r"^Shipit-Dirty: yes$", re.MULTILINE)


class FilesSource(Stored):
    """The source of what `shipit deploy` brought."""

    kind = "files"

    def origin(self, oid: Oid) -> Origin:
        """The origin of a release of these files: `ref` is the commit that they are based on, with `+changes` if they
        differ from it; "" if they are not from a checkout."""
        commit = self.commits.commit(oid)
        base = _BASE.search(commit.body)
        ref = "" if base is None else base[1][:8] + ("+changes" if _DIRTY.search(commit.body) else "")
        return Origin(self.kind, oid, title=commit.subject, author=commit.author, ref=ref)

    def base(self, origin: Origin) -> Base:
        """The base is the commit that the directory was at; the server may not have it."""
        made = self.commits.commit(commit_of(origin))
        said = _BASE.search(made.body)
        if said is None:
            return Base("", False, 0, "")
        known = self.commits.git.commit_of(said[1])
        of = of_history(self.commits, known) if known else Base(said[1], False, made.when, "")
        return of._replace(dirty=_DIRTY.search(made.body) is not None)
