"""Files that did not come by git, made a commit: first in a repository of its own, and in the app's when all is well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from receiver.errors import HostFault, Rejected
from receiver.names import Oid
from receiver.sources.git.commits import Commits
from receiver.sources.git.repository import Git, environment, scratch
from receiver.system.run import run

# The branch that `fill` makes there, and where the app's repository keeps the last one until its release does.
REF, RECEIVED = "refs/heads/received", "refs/shipit/received"
Check = Callable[[Commits, Oid], None]


def received(repo: Path, fill: Callable[[Git], None], check: Check) -> Oid:
    """The commit that `fill` makes REF in the repository that it is given; the app's has it when this returns.

    The caller has the app's turn. `check` looks at it before, and raises what is wrong with it. Raises Rejected, with
    nothing kept, when git finds the objects to be none that a push could bring.
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
    """Have what is in the other repository in the app's, as by a push: looked at by git, and durable."""
    config = {"protocol.file.allow": "always", "fetch.fsckObjects": "true", "fetch.unpackLimit": "1"}
    fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc"]
    where = [f"file://{git.repo}", f"+{REF}:{RECEIVED}"]
    done = run(Git(repo).argv(*fetch, "--", *where), env=environment(config), check=False)
    if done.code:
        raise Rejected("git does not take the files that were sent.", details=done.err.splitlines()[-5:])
