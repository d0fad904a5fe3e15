"""What git runs when a push has arrived: pre-receive refuses, post-receive hands the commit to the worker.

Both run inside `git receive-pack`, which the gateway started; what they write to standard error the client shows with
`remote: ` before it. The release itself is made by the worker: killing a hook, the gateway or the client stops nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from receiver.errors import Failure, HostFault, Rejected
from receiver.gate import push as pushes
from receiver.gate import refs
from receiver.gate.push import Options, Push
from receiver.gate.refs import Update
from receiver.host.git import quarantine
from receiver.host.source import GitSource
from receiver.model import Source, Status
from receiver.names import Branch, Oid

# Beside the files of the commit itself: what a build and the ledger need.
SPARE_INODES = 10_000


def pre_receive() -> int:
    """`hooks/pre-receive`: exit 1 refuses all of the push; nothing of it is kept then."""
    return _guarded(_pre_receive)


def post_receive() -> int:
    """`hooks/post-receive`: deploy what was pushed. Its exit code means nothing to git; the gateway gives the verdict."""
    return _guarded(_post_receive)


def _guarded(act: Callable[[Push, Options, list[Update]], None]) -> int:
    os.umask(0o027)
    try:
        act(pushes.read(os.environ), pushes.options(os.environ), refs.parse(sys.stdin.buffer))
    except Failure as failure:
        for line in failure.lines():
            tell(f" !     {line}")
        return 1
    except OSError as error:
        tell(f" !     The server could not take the push: {error.strerror or error}.")
        tell(" !     (The administrator looks with: shipit doctor)")
        return 1
    return 0


def tell(line: str) -> None:
    """A line for the pusher; one who went away is no reason to stop."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def _pre_receive(push: Push, options: Options, updates: list[Update]) -> None:
    state = push.ledger.state()
    if state.locked:
        raise Rejected(
            f"{push.app} is locked: {state.locked}",
            holds="Nothing was received.",
            hint=f"Unlock it: shipit apps:unlock {push.app}",
        )
    with GitSource(push.ledger.paths.repo, quarantine(os.environ)) as source:
        refs.check(updates, state, options, source.git)
        found = refs.deployed(updates, state)
        if found is not None and found[1].new is not None:
            check_commit(push, source, found[1].new)


def check_commit(push: Push, source: GitSource, commit: Oid) -> None:
    """Refuse early what the build would fail on: no room, a tree bomb, a manifest with a mistake."""
    disk = os.statvfs(push.ledger.paths.dir)
    free = disk.f_bavail * disk.f_frsize
    if free < push.min_free * 2**20:
        raise HostFault(
            f"The disk of the server is nearly full: {free // 2**20} MiB are free, {push.min_free} MiB must stay.",
            holds="Nothing was received.",
            hint="Keep fewer releases, or make room on the server; see: shipit doctor",
        )
    tree = source.tree(commit, max_files=push.max_files, max_size=free - push.min_free * 2**20)
    count = len(tree.entries())
    if disk.f_files and disk.f_favail < count + SPARE_INODES:
        raise HostFault(f"The disk of the server has only {disk.f_favail} inodes left.", holds="Nothing was received.")
    from receiver.manifest import read_manifest

    read_manifest(tree)


def _post_receive(push: Push, options: Options, updates: list[Update]) -> None:
    state = push.ledger.state()
    found = refs.deployed(updates, state)
    if found is None:
        tell("-----> Stored. Tags are not deployed.")
        return
    branch, update = found
    source = GitSource(push.ledger.paths.repo)
    if update.new is None:
        push.ledger.change_state(lambda s: replace(s, branch=None))
        tell(f"-----> {branch} is gone. The next branch that is pushed becomes the deploy branch.")
        return
    if state.branch is None:
        push.ledger.change_state(lambda s: replace(s, branch=branch))
        source.git.point_head_at(branch)
    if not options.deploy:
        source.git.store(update.new)
        tell(f"-----> Stored {update.new[:8]}, not deployed. Deploy it: git push")
        return
    deploy(push, options, source, branch, update.new)


def deploy(push: Push, options: Options, source: GitSource, branch: Branch, oid: Oid) -> None:
    """Open the release, tell the worker, and show its log until the verdict."""
    import socket

    from receiver.host.follow import follow

    ledger = push.ledger
    commit = source.commit(oid)
    release = ledger.open_release(
        Source.GIT,
        push.by,
        builds=True,
        commit=oid,
        branch=branch,
        subject=commit.subject,
        author=commit.author,
        message=options.message,
        fresh=options.force,
    )
    # Before the worker is told: from here on the gateway knows which verdict to wait for.
    os.write(push.verdict, f"{release.number}\n".encode())
    os.close(push.verdict)
    with socket.socket(fileno=push.worker) as worker:
        try:
            worker.sendall(f"deploy {release.app} {release.number}\n".encode())
        except OSError as error:
            ledger.finish(release, Status.FAILED, "The worker did not start.")
            raise HostFault(
                "The worker that makes releases did not start.", hint="The administrator looks with: shipit doctor"
            ) from error
        source.git.pin(release.number, oid)
        host = os.uname().nodename
        tell(
            f"-----> {release.name} of {push.app}. Ctrl-C detaches; watch it again: ssh shipit@{host} releases:output {push.app} -f"
        )
        tell(f"       Stop it: ssh shipit@{host} cancel {push.app}")
        follow(ledger, release.number, 2, worker=worker)
