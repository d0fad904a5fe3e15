"""Turns files that did not come by git into a commit: first in a temporary repository, then, if all is well, in the
app's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from receiver.errors import HostFault, Rejected
from receiver.names import Oid
from receiver.sources.git.commits import Commits
from receiver.sources.git.repository import Git, environment, scratch
from receiver.system.run import run

# The branch that `fill` makes, and the ref by which the app's repository keeps the last such commit until its release
# does.
REF, RECEIVED = "refs/heads/received", "refs/shipit/received"
Check = Callable[[Commits, Oid], None]


def received(repo: Path, fill: Callable[[Git], None], check: Check) -> Oid:
    """The commit that `fill` makes as REF in the repository that it is given; when this returns, the app's repository
    has it.

    The caller has the app's turn. Before the app's repository gets the commit, `check` looks at it and raises what is
    wrong. Raises Rejected, with nothing kept, if git finds objects that it would not accept in a push.
    """
    with scratch(repo, repo, "received") as git:
        fill(git)
        oid = git.commit_of(REF)
        if oid is None:
            raise HostFault("git made no commit of what was sent.")
        with Commits(git.repo) as commits:
            check(commits, oid)
        take(repo, git)
    return oid


def take(repo: Path, git: Git) -> None:
    """Copy the other repository's objects into the app's as by a push: checked by git, and durable."""
    config = {"protocol.file.allow": "always", "fetch.fsckObjects": "true", "fetch.unpackLimit": "1"}
    fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc"]
    where = [f"file://{git.repo}", f"+{REF}:{RECEIVED}"]
    done = run(Git(repo).argv(*fetch, "--", *where), env=environment(config), check=False)
    if done.code:
        raise Rejected("git refuses the files that were sent.", details=done.err.splitlines()[-5:])
