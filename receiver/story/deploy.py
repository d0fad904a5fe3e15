"""How a release goes live. Every release does, whatever it came from: a push, a config change, a scale, a rollback.

Killed at any point, what is found is the old release serving, or the new one, whole: before `commit` nothing that
serves was touched; `commit` is one rename; what follows it can be repeated (story/recover.py does).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

from receiver.errors import Cancelled, Failure
from receiver.model import Release, Status
from receiver.root.client import Agent
from receiver.settings import url
from receiver.sources.git.repository import Git
from receiver.story import checkpoint
from receiver.story.check import wait_until_healthy
from receiver.story.context import Host
from receiver.story.recover import recover
from receiver.story.release_command import run_release_command
from receiver.story.retire import prune
from receiver.system import disk


def deploy(host: Host, release: Release) -> Release:
    """Make `release` the live release of its app, or change nothing that serves; the caller holds the app's lock.

    Raises Failure with the reason after everything of the release but its record and log was taken away.
    """
    with undone_on_failure(host, release):
        recover(host, release)
        if release.builds:
            settle_in(host, release)
        with known_to_the_proxy(host):
            release = built(host, release)
        # A new slug is durable before the ledger names it; the disk works while the new processes come up.
        with disk.synced(host.paths.slugs) if release.builds else nullcontext():
            snapshot_config(host, release)
            run_release_command(host, release)
            release = start(host, release)
            if not release.builds:
                # Not before: the user waits for the start, and nothing is left to do while the processes load.
                settle_in(host, release)
            wait_until_healthy(host, release)
        checkpoint.reach("healthy")
        commit(host, release)
    release = announce(host, release)
    host.ledger.keep_copy(release)
    prune(host)
    return release


def settle_in(host: Host, release: Release) -> None:
    """What has to be before anything of the release prints or takes long."""
    leave_session(host, release)
    hide_config(host, release)


def leave_session(host: Host, release: Release) -> None:
    """Have the worker, which is this process, moved into a unit of its own, so that no end of a session ends it."""
    # It is all the same to a release if nobody ends that session.
    with suppress(Failure):
        host.agent.adopt(release.app, release.number)


def built(host: Host, release: Release) -> Release:
    """The release with a slug of its own; one that runs another's comes back as it is."""
    checkpoint.reach("opened")
    if not release.builds or release.commit is None:
        return release
    # What reads a commit is slow to import, and only this needs it.
    from receiver.story.build import build

    return build(host, release, release.commit)


@contextmanager
def known_to_the_proxy(host: Host) -> Iterator[None]:
    """Beside the first build of an app, give it its vhost: nginx's reload takes as long as all of the switch.

    The vhost of an app without a live release is that of one web process. If this fails, `announce` tries again.
    """
    if host.ledger.current_number():
        yield
        return

    def apply() -> None:
        with suppress(Failure), host.agent.anew() as agent:
            agent.proxy(host.ledger.app)

    beside = threading.Thread(target=apply)
    beside.start()
    try:
        yield
    finally:
        beside.join()


@contextmanager
def undone_on_failure(host: Host, release: Release) -> Iterator[None]:
    """On any exception before the commit: stop and remove what was started and built, record why."""
    try:
        yield
    except BaseException as error:
        if host.ledger.current_number() == release.number:
            raise
        cancelled = isinstance(error, Cancelled)
        reason = error.message if isinstance(error, Failure) else f"A bug in shipit ({type(error).__name__})."
        try:
            # The connection may hold half an answer: whatever interrupted us may have come in the middle of a call.
            with Agent.connect(host.layout.agent_socket) as agent:
                agent.cancel(release.app, release.number)
                agent.take_away(release.app, release.number)
        finally:
            known = host.ledger.release(release.number)
            known = replace(known, seconds=tuple(host.say.seconds))
            host.ledger.finish(known, Status.CANCELLED if cancelled else Status.FAILED, reason)
        raise


def snapshot_config(host: Host, release: Release) -> None:
    """Freeze the config vars of a release that was built; those of another were written when it was submitted."""
    if release.builds:
        host.agent.snapshot_config(release.app, release.number, release.config_base, {}, [])
    checkpoint.reach("configured")


def hide_config(host: Host, release: Release) -> None:
    """Whatever a build, a release command or a crashing process prints of the config vars is not kept.

    A release that is built will have those of its base; another's are written already.
    """
    number = release.config_base if release.builds else release.number
    host.say.hide(host.agent.read_config(release.app, number).values())


def start(host: Host, release: Release) -> Release:
    """Start the whole formation beside the old one."""
    if release.status is not Status.STARTING:
        release = host.ledger.save(replace(release, status=Status.STARTING))
    if release.running() and not host.keeps_stopped(release):
        beside = f" beside v{release.previous}" if release.previous else ""
        if release.took_over:
            beside += f": v{release.took_over} was kept warm"
        host.say.step(f"Starting {', '.join(f'{p.type}.{i}' for p, i in release.running())}{beside}")
        with host.say.timed("start"):
            host.agent.start(release.app, release.number)
    # The processes load meanwhile.
    host.ledger.keep_name(release)
    checkpoint.reach("started")
    return release


def commit(host: Host, release: Release) -> None:
    """The commit point, and with it the switch: nginx's upstream is a path through this link."""
    with host.say.timed("switch"):
        host.ledger.commit(release)
    checkpoint.reach("committed")


def announce(host: Host, release: Release) -> Release:
    """After the commit: make the rest of the world follow, then tell. Repeatable; recover() does it after a crash."""
    if host.ledger.state().stopped and not host.keeps_stopped(release):
        host.ledger.change_state(lambda state: replace(state, stopped=False))
    if not host.keeps_stopped(release):
        host.agent.boot_with(release.app, release.number)
    host.agent.proxy(release.app)
    if release.branch and release.commit:
        Git(host.paths.repo).put_back(release.branch, release.commit)
    checkpoint.reach("announced")
    # The clock may have been set back meanwhile.
    took = max(0.0, time.time() - release.created)
    if not release.slug:
        host.say.step(f"{release.name} holds the config vars for the first push ({took:.1f} s)")
    elif host.keeps_stopped(release):
        host.say.step(f"{release.name} is ready; {release.app} is stopped ({took:.1f} s)")
    else:
        host.say.step(
            f"{release.name} is live at {url(release.app, host.ledger.state().domains, host.settings)} ({took:.1f} s)"
        )
    return host.ledger.finish(replace(release, seconds=tuple(host.say.seconds)), Status.LIVE)
