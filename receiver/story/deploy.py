"""How a release goes live. Every release takes this way: a push, a config change, a scale, a rollback.

If the worker is killed at any point, either the old release serves or the new one does, whole: nothing that serves is
touched before `commit`; `commit` is one rename; what follows can be repeated (story/recover.py does).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

from receiver.errors import Cancelled, Failure
from receiver.model import Release, Status
from receiver.proxy.endpoint import address, takes_requests
from receiver.root.client import Agent
from receiver.sources.all import origin_of, source_of
from receiver.story import checkpoint, storage, verdict
from receiver.story.beside import Again, Beside
from receiver.story.check import wait_until_healthy
from receiver.story.context import AppContext
from receiver.story.domains import claimed, settle
from receiver.story.recover import recover
from receiver.story.release_command import run_release_command
from receiver.story.retire import prune
from receiver.system import disk
from receiver.system.address import moved


def deploy(context: AppContext, release: Release) -> Release:
    """Make `release` the live release of its app, or change nothing that serves; the caller holds the app's lock.

    Raises Failure with the reason, after everything of the release except its record and log was removed.
    """
    with undone_on_failure(context, release):
        recover(context, release)
        if release.builds:
            settle_in(context, release)
        with known_to_the_proxy(context):
            release = built(context, settle(context, release))
        # A new slug is durable before the ledger names it; it is synced while the new processes start.
        with disk.synced(context.paths.slugs) if release.builds else nullcontext():
            snapshot_config(context, release)
            beside = Beside(context, release)
            release = started(context, release, beside)
        checkpoint.reach("healthy")
        commit(context, release)
        beside.keep()
    release = announce(context, release)
    context.ledger.keep_copy(release)
    prune(context)
    return release


def started(context: AppContext, release: Release, beside: Beside) -> Release:
    """The release with all processes up and healthy. If it lacked only a place to write, it gets one and starts
    again."""
    while True:
        try:
            with beside.watched():
                run_release_command(context, release)
                release = start(context, release)
                if not release.builds and not beside.given:
                    # Only now, while the processes load: before, it would make the user wait longer.
                    settle_in(context, release)
                wait_until_healthy(context, release)
                return release
        except Again:
            release = context.ledger.release(release.number)


def settle_in(context: AppContext, release: Release) -> None:
    """What has to be done before anything of the release prints or takes long."""
    leave_session(context, release)
    hide_config(context, release)


def leave_session(context: AppContext, release: Release) -> None:
    """Have the worker (this process) moved into a unit of its own, so that the end of the login does not end it."""
    # If that fails, the release can go on: it matters only if the session ends.
    with suppress(Failure):
        context.agent.adopt(release.app, release.number)


def built(context: AppContext, release: Release) -> Release:
    """The release with a slug of its own; a release that uses another one's slug comes back unchanged."""
    checkpoint.reach("opened")
    if not release.builds:
        return release
    # Importing what reads a commit is slow, and only this needs it.
    from receiver.story.build import build

    return build(context, release, origin_of(release))


@contextmanager
def known_to_the_proxy(context: AppContext) -> Iterator[None]:
    """During the first build of an app, make its vhost: nginx's reload takes as long as the whole switch.

    The vhost of an app without a live release is that of one web process. If this fails, `announce` tries again.
    """
    if context.ledger.current_number():
        yield
        return

    def apply() -> None:
        with suppress(Failure), context.agent.anew() as agent:
            agent.proxy(context.ledger.app)

    beside = threading.Thread(target=apply)
    beside.start()
    try:
        yield
    finally:
        beside.join()


@contextmanager
def undone_on_failure(context: AppContext, release: Release) -> Iterator[None]:
    """On any exception before the commit: stop and remove what was started and built, and record why."""
    try:
        yield
    except BaseException as error:
        if context.ledger.current_number() == release.number:
            raise
        reason = error.message if isinstance(error, Failure) else f"A bug in shipit ({type(error).__name__})."
        try:
            # A new connection: the exception may have interrupted a call, which leaves half an answer on the old one.
            with Agent.connect(context.layout.agent_socket) as agent:
                agent.cancel(release.app, release.number)
                put_away(context, agent, release.number)
        finally:
            known = context.ledger.release(release.number)
            known = replace(known, seconds=tuple(context.say.seconds))
            end = verdict.cancelled if isinstance(error, Cancelled) else verdict.failed
            end(context.ledger, known, reason)
        raise


def put_away(context: AppContext, agent: Agent, number: int) -> None:
    """Remove a release that did not go live; but keep its new environment for the next try. Only one such is kept.

    Pruning takes it once a release is live (retire.py).
    """
    failed = context.ledger.release(number)
    if failed.digest and failed.environment == number:
        agent.put_aside(failed.app, number)
    else:
        agent.take_away(failed.app, number)
    # The directories that this release has links to were made by an earlier try, and stay for the next, too.
    since = {n for n in context.ledger.built() if n > context.ledger.current_number()}
    if left := sorted(since - failed.needs - {number}):
        with suppress(Failure):
            agent.prune(failed.app, left)


def snapshot_config(context: AppContext, release: Release) -> None:
    """Freeze the config vars of a release that was built; those of the others were written when they were submitted."""
    if release.builds:
        context.agent.snapshot_config(release.app, release.number, release.config_base, {}, [])
    checkpoint.reach("configured")


def hide_config(context: AppContext, release: Release) -> None:
    """Have values of config vars masked in what a build, a release command or a crashing process prints.

    A release that is built will have the config vars of its base; those of another release are written already.
    """
    number = release.config_base if release.builds else release.number
    context.say.hide(context.agent.read_config(release.app, number).values())


def start(context: AppContext, release: Release) -> Release:
    """Start the whole formation beside the old one."""
    if release.status is not Status.STARTING:
        release = context.ledger.save(replace(release, status=Status.STARTING))
    if release.running() and not context.keeps_stopped(release):
        beside = f" beside v{release.previous}" if release.previous else ""
        if release.took_over:
            beside += f": v{release.took_over} was kept warm"
        context.say.step(f"Starting {', '.join(f'{p.type}.{i}' for p, i in release.running())}{beside}")
        with context.say.timed("start"):
            context.agent.start(release.app, release.number)
    # Meanwhile the processes load.
    context.ledger.keep_name(release)
    checkpoint.reach("started")
    return release


def commit(context: AppContext, release: Release) -> None:
    """The commit point, and with it the switch: nginx's upstream is a path through this link."""
    with context.say.timed("switch"), claimed(context, release):
        context.ledger.commit(release)
    checkpoint.reach("committed")


def announce(context: AppContext, release: Release) -> Release:
    """After the commit: update proxy, boot units and branch, then tell. Repeatable: recover() does it after a crash."""
    if context.ledger.state().stopped and not context.keeps_stopped(release):
        context.ledger.change_state(lambda state: replace(state, stopped=False))
    if not context.keeps_stopped(release):
        context.agent.boot_with(release.app, release.number)
    context.agent.proxy(release.app)
    if release.origin:
        source_of(context.paths, release.origin).follow(release)
    checkpoint.reach("announced")
    # The clock may have been set back since `created`.
    took = max(0.0, time.time() - release.created)
    if not release.slug:
        context.say.step(f"{release.name} holds the config vars for the first push ({took:.1f} s)")
    elif context.keeps_stopped(release):
        context.say.step(f"{release.name} is ready; {release.app} is stopped ({took:.1f} s)")
    elif not takes_requests(release):
        context.say.step(f"{release.name} is live; nothing of it takes requests ({took:.1f} s)")
    else:
        where = address(context.layout, context.ledger.state(), release, context.settings)
        context.say.step(f"{release.name} is live at {where} ({took:.1f} s)")
        leads, now = moved(context.settings.domain)
        if leads:
            context.say.warn(
                f"Names below {context.settings.domain} lead to {leads}, which is not an address of the server any more. "
                f"There, as root: ./install.sh --domain {now}"
            )
        if context.paths.maintenance.exists():
            context.say.line(f"Visitors see the maintenance page. To end it: shipit maintenance:disable {release.app}")
    for line in storage.warning(context.ledger, context.settings).splitlines():
        context.say.warn(line)
    return verdict.live(context.ledger, replace(release, seconds=tuple(context.say.seconds)))
