"""The worker: makes one release live, in a unit of its own that no client's disconnection can stop.

Started by the first connection to worker.sock (systemd, Accept=yes), before there is anything to do: the gateway
connects while git still works, so that Python and the agent are up when the hook has the commit. It then reads one
line, `deploy APP NUMBER`, answers `started`, and works; a connection that closes without a line means: nothing to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import traceback
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from receiver import settings
from receiver.errors import Cancelled, Failure, full_disk
from receiver.host import disk, ledger
from receiver.host.client import Agent
from receiver.host.early import FIRST_FD, given
from receiver.host.listener import fork_for_each
from receiver.host.say import Say
from receiver.model import Release, Status
from receiver.names import app_name, release_number
from receiver.paths import SHIPIT_USER, Layout
from receiver.story.deploy import deploy
from receiver.story.host import Host
from receiver.story.retire import retire

STARTED = b"started\n"


def main(agent: int = -1) -> int:
    """`libexec/worker`: serve the connection systemd passed, or with `--listen` accept and fork (embedded).

    `agent` is a descriptor connected to the agent already, which starts while this process still imports.
    """
    os.umask(0o027)
    if sys.argv[1:] == ["--listen"]:
        listen(Layout())
    with socket.socket(fileno=FIRST_FD) as connection:
        return serve(Layout(), connection, agent)


def serve(layout: Layout, connection: socket.socket, connected: int = -1) -> int:
    """Wait for the one line and do what it says; returns an exit code for the unit."""
    path = layout.agent_socket
    with Agent.connect(path) if connected < 0 else Agent(socket.socket(fileno=connected), path) as agent:
        if not select.select([connection], [], [], 0)[0]:
            preload()
        lines = connection.makefile("rb")
        # An empty line brought the agent's descriptor (host/early.py), here too late for us.
        while (raw := lines.readline(200)) == b"\n":
            pass
        line = raw.decode(errors="replace").split()
        if len(line) != 3 or line[0] != "deploy":
            return 0
        app, number = app_name(line[1]), release_number(line[2])
        book = ledger.open_app(layout, app)
        paths = book.paths.release(number)
        with paths.alive.open("r+") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            alive.truncate(0)
            alive.write(f"{os.getpid()}\n")
            alive.flush()
            with contextlib.suppress(OSError):
                connection.sendall(STARTED)
            say = Say(paths.log)
            host = Host(layout, settings.load(layout.settings), book, agent, say)
            return work(host, number)


def preload() -> None:
    """Import, while git is still receiving, what every deploy needs and what is slow to import."""
    import receiver.manifest
    import receiver.plan.build  # noqa: F401


def work(host: Host, number: int) -> int:
    """Take the app's lock, deploy, and write the verdict into the log whatever happens."""
    release = host.ledger.release(number)

    def cancel(signum: int, frame: FrameType | None) -> None:
        # Past the commit there is nothing to cancel: the release is live and only housekeeping is left.
        if host.ledger.current_number() != number:
            raise Cancelled(f"{release.name} was cancelled.")

    signal.signal(signal.SIGTERM, cancel)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with disk.locked(host.paths.app_lock, wait=True):
            release = deploy(host, release)
        retire(host, release)
    except Failure as failure:
        report(host, release, failure)
        return failure.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the pusher gets a verdict and never a traceback
        traceback.print_exc()
        report(host, release, bug(host, release, error))
        return 70
    return 0


def bug(host: Host, release: Release, error: Exception) -> Failure:
    """An unexpected error as the user sees it; the traceback is in the worker's own log."""
    told = full_disk(error) or Failure(
        f"This is a bug in shipit ({type(error).__name__}).",
        hint="The server's administrator finds it with: journalctl -t shipit-worker -n 50",
    )
    known = host.ledger.release(release.number)
    if not known.status.final and host.ledger.current_number() != release.number:
        host.ledger.finish(replace(known, seconds=tuple(host.say.seconds)), Status.FAILED, told.message)
    return told


def report(host: Host, release: Release, failure: Failure) -> None:
    """What failed, what still holds, what to type next: the last lines of the log."""
    current = host.ledger.current_number()
    for line in failure.details:
        host.say.line(line)
    for line in failure.message.splitlines():
        host.say.warn(line)
    if current == release.number:
        host.say.warn(f"{release.name} is live all the same.")
    elif current:
        host.say.warn(f"{release.name} was not made live; v{current} is still serving.")
    else:
        host.say.warn(f"{release.name} was not made live; {release.app} has no live release yet.")
    hint = (
        failure.hint or f"See all of it: shipit releases:output {release.app} {release.name}    Try again: push again"
    )
    for line in hint.splitlines():
        host.say.warn(f"({line})")


def listen(layout: Layout) -> NoReturn:
    """The embedded manager's way: bind as root, become `shipit`, fork a worker for each connection."""
    import pwd

    user = pwd.getpwnam(SHIPIT_USER)
    layout.worker_socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        os.umask(0o177)
        server.bind(os.fspath(layout.worker_socket))
        os.umask(0o027)
        os.chown(layout.worker_socket, user.pw_uid, user.pw_gid)
        os.initgroups(SHIPIT_USER, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        fork_for_each(server, lambda connection: serve(layout, connection, given(connection.fileno())))
