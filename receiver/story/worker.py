"""The worker: makes one release live, in a process that no client's disconnection can stop.

The worker is a fork of the gateway, or of the command line on the server, so all imports and the connection to the
agent are there already. It leaves the session: it has a session of its own (setsid(2)), none of the client's or git's
descriptors, and the agent moves it into a unit of its own (`shipit-worker-blog-v8.scope`).
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from receiver import settings
from receiver.errors import Cancelled, Failure, HostFault, sick_disk
from receiver.here import typed
from receiver.ledger.ledger import Ledger
from receiver.ledger.say import Say
from receiver.model import Change, Release
from receiver.paths import Layout
from receiver.proxy.endpoint import still_holds
from receiver.proxy.vhost import listens
from receiver.root.client import Agent
from receiver.sources.all import source_of
from receiver.story import verdict
from receiver.story.aftercare import watch_on
from receiver.story.context import AppContext
from receiver.story.deploy import deploy
from receiver.story.retire import come_to_rest, retire
from receiver.story.storage import look
from receiver.system import disk
from receiver.system.audit import Audit, where
from receiver.system.detach import detach
from receiver.system.limits import limit_memory

NAME = "shipit-worker"  # the name in ps(1), where its command line is the gateway's; 15 bytes at most (proc(5), comm)
AFTERWARDS = "shipit-watch"  # its name once the release is live and the old one retired


def begin(layout: Layout, ledger: Ledger, release: Release, agent: Agent) -> int:
    """Keep what `release` came from, and start the worker that makes it live; returns a descriptor that reads end of
    file when the worker has ended.

    The caller holds the app's queue lock. The worker takes over `agent`, which is closed here, and holds `app.lock` and
    the
    release's `alive` before this returns. Raises Failure, with the release recorded as failed, if it cannot start.
    """
    reader, writer = os.pipe()
    held = [writer]
    try:
        if release.builds and release.origin:
            source_of(ledger.paths, release.origin).keep(release.number, release.origin)
        for path in (ledger.paths.app_lock, ledger.paths.release(release.number).alive):
            held.append(locked(path))
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork() == 0:
            leave(layout, ledger, release, agent, held)
    except (OSError, Failure) as error:
        os.close(reader)
        # The release is recorded already. If this fails, too, the next worker or the next boot marks it as failed.
        with suppress(Failure):
            agent.take_away(release.app, release.number)
        if isinstance(error, Failure):
            verdict.failed(ledger, release, error.message)
            raise
        verdict.failed(ledger, release, "The worker did not start.")
        raise HostFault(
            f"The worker that makes releases did not start ({error.strerror}).",
            holds=still_holds(ledger),
            hint="Try again; the server's administrator looks with: shipit doctor",
        ) from error
    finally:
        # Closing these keeps the locks: they belong to the open files, which the worker shares (flock(2)).
        for fd in held:
            os.close(fd)
        agent.close()
    return reader


def locked(path: Path) -> int:
    """An open descriptor of the file with an exclusive lock on it."""
    fd = disk.open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def leave(layout: Layout, ledger: Ledger, release: Release, agent: Agent, held: list[int]) -> None:
    """In the fork: run as the worker, and never return into the gateway's code."""
    code = 70
    try:
        code = serve(layout, ledger, release, agent, held)
    except BaseException as error:  # noqa: BLE001 - as above
        Audit("worker").bug(error)
    finally:
        os._exit(code)


def serve(layout: Layout, ledger: Ledger, release: Release, agent: Agent, held: list[int]) -> int:
    """Make the release live; returns an exit code. `held`: the pipe to the follower, `app.lock`, `alive`."""
    detach({agent.fileno(), *held}, NAME)
    gc.freeze()
    gc.enable()
    follower, lock, alive = held
    os.ftruncate(alive, 0)
    os.write(alive, f"{os.getpid()}\n".encode())
    known = settings.load(layout.settings)
    limit_memory(known.push_memory)
    context = AppContext(layout, known, ledger, agent, Say(ledger.paths.release(release.number).log))
    verdict.opened(ledger, release)
    code = work(context, release, lock)
    # From here on no release is being made, and nobody waits.
    for fd in (follower, alive):
        os.close(fd)
    if code == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        Path("/proc/self/comm").write_text(AFTERWARDS)
        come_to_rest(context, release)
        watch_on(context, ledger.release(release.number))
        # Measuring fails if the ledger is damaged or the app is destroyed meanwhile; doctor reports the first.
        with suppress(Failure, OSError):
            look(ledger, agent, known)
    return code


def work(context: AppContext, release: Release, lock: int) -> int:
    """Deploy, and always write the verdict into the log. `lock` (app.lock) is released after the switch."""

    def cancel(signum: int, frame: FrameType | None) -> None:
        # Past the commit there is nothing to cancel: the release is live and only housekeeping is left.
        if context.ledger.current_number() != release.number:
            raise Cancelled(f"{release.name} was cancelled.")

    signal.signal(signal.SIGTERM, cancel)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        try:
            release = deploy(context, release)
        finally:
            os.close(lock)
        retire(context, release)
    except Failure as failure:
        report(context, release, failure)
        return failure.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the pusher gets a verdict and never a traceback
        Audit("worker").bug(error)
        report(context, release, bug(context, release, error))
        return 70
    return 0


def live_all_the_same(context: AppContext, release: Release) -> str:
    """What holds when something fails after the switch: the release is live. If nginx does not know the app, visitors
    cannot reach it, and the text says so."""
    if context.paths.vhost.exists() or not listens(release):
        return f"{release.name} is live all the same."
    return (
        f"{release.name} is live, but nobody reaches it: nginx does not know {release.app} yet.\n"
        "Once nginx accepts its configuration: shipit doctor --fix"
    )


def bug(context: AppContext, release: Release, error: Exception) -> Failure:
    """An unexpected error as the user sees it; the traceback is in the journal."""
    told = sick_disk(error) or Failure(
        f"This is a bug in shipit ({type(error).__name__}).",
        hint=f"The server's administrator finds it with: {where()}",
    )
    known = context.ledger.release(release.number)
    if not known.status.final and context.ledger.current_number() != release.number:
        verdict.failed(context.ledger, replace(known, seconds=tuple(context.say.seconds)), told.message)
    return told


def report(context: AppContext, release: Release, failure: Failure) -> None:
    """What failed, what still holds, what to type next: the last lines of the log."""
    for line in failure.details:
        context.say.foreign(line)
    for line in failure.message.splitlines():
        context.say.warn(line)
    if context.ledger.current_number() == release.number:
        for line in typed(live_all_the_same(context, release)).splitlines():
            context.say.warn(line)
    else:
        context.say.warn(f"{release.name} was not made live; {still_holds(context.ledger)}")
    again = "push again" if release.change is Change.DEPLOY else "the same command"
    see = f"See all of it: shipit releases:output {release.app} {release.name}"
    hint = failure.hint or f"{see}\nTry again: {again}"
    for line in typed(hint).splitlines():
        context.say.warn(f"({line})")
