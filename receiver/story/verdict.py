"""How a release ends: the only place where its verdict is written down, and where events are sent.

The verdict comes first and is durable. Then the capabilities that asked for the event are called, in a process of their
own: if one fails, hangs or crashes, that changes nothing for the release, or for anybody who waits for it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from receiver.errors import Failure
from receiver.ledger.ledger import Ledger
from receiver.model import Release, Status
from receiver.names import TypeName
from receiver.ops import all as ops
from receiver.ops import tls
from receiver.ops.base import Capability, Event, What
from receiver.root.client import Agent
from receiver.system.audit import Audit
from receiver.system.detach import detach

# Seconds that all capabilities together may take for one event.
LIMIT = 120


def opened(ledger: Ledger, release: Release) -> None:
    """The release has its number, and a worker makes it."""
    tell(Event(What.OPENED, release, ledger))


def live(ledger: Ledger, release: Release) -> Release:
    """The release serves: the link `current` leads to it already."""
    return _ended(ledger, release, Status.LIVE, What.LIVE)


def failed(ledger: Ledger, release: Release, reason: str) -> Release:
    """The release was not made live. Its record and log stay, and its slug for the next try (deploy.put_away)."""
    return _ended(ledger, release, Status.FAILED, What.FAILED, reason)


def cancelled(ledger: Ledger, release: Release, reason: str) -> Release:
    """The release was not made live because a user or the system asked its worker to stop."""
    return _ended(ledger, release, Status.CANCELLED, What.CANCELLED, reason)


def retired(ledger: Ledger, number: int) -> None:
    """A newer release replaced this one, and its processes were told to end."""
    if _hearers(What.RETIRED):
        tell(Event(What.RETIRED, ledger.release(number), ledger))


def crashed(ledger: Ledger, number: int, process: TypeName, index: int, *, apart: bool = False) -> None:
    """A process of the release ends again and again. Called by aftercare and by doctor. `apart` is for doctor at boot:
    it is a service there without network, and its end would end the process that tells."""
    if _hearers(What.CRASHED):
        tell(Event(What.CRASHED, ledger.release(number), ledger, process, index), apart=apart)


def unreached(ledger: Ledger, reason: str) -> None:
    """The repository that the app follows cannot be reached, or is refused, for the first time. For story/pull.py."""
    release = ledger.current()
    if release is not None and _hearers(What.UNREACHED):
        tell(Event(What.UNREACHED, release, ledger, reason=reason))


def run_failed(ledger: Ledger, number: int, process: TypeName, how: str) -> None:
    """A scheduled run did not end with 0. Waits for the capabilities: only for a process that has nothing else to
    do."""
    if hearers := _hearers(What.RUN_FAILED):
        tell_each(hearers, Event(What.RUN_FAILED, ledger.release(number), ledger, process, 1, how))


def certificates(ledger: Ledger) -> None:
    """Send events for the app's names that have no certificate, or one that ends soon, as far as nobody was told
    before. Waits for the capabilities: only for a process that has nothing else to do."""
    release, hearers = ledger.current(), _hearers(What.CERTIFICATE)
    if release is not None and hearers:
        for reason in tls.news(ledger):
            tell_each(hearers, Event(What.CERTIFICATE, release, ledger, reason=reason))


def storage(ledger: Ledger, reason: str) -> None:
    """The app's data nears its quota, or exceeds it. Waits for the capabilities: only for a process that has nothing
    else to do."""
    release, hearers = ledger.current(), _hearers(What.STORAGE)
    if release is not None and hearers:
        tell_each(hearers, Event(What.STORAGE, release, ledger, reason=reason))


def _ended(ledger: Ledger, release: Release, status: Status, what: What, reason: str = "") -> Release:
    release = ledger.finish(release, status, reason)
    tell(Event(what, release, ledger))
    return release


def _hearers(what: What) -> list[Capability]:
    return [capability for capability in ops.ALL if what in capability.hears]


def tell(event: Event, *, apart: bool = False) -> None:
    """Pass the event, in a new process, to every capability that wants it; returns at once."""
    if hearers := _hearers(event.what):
        # If the machine can start no process, the worker has failed with that message already.
        with suppress(OSError):
            aside(lambda: tell_each(hearers, event), event if apart else None)


def tell_each(hearers: Sequence[Capability], event: Event) -> None:
    for capability in hearers:
        try:
            capability.on(event)
        except Exception as error:  # noqa: BLE001 - the next capability is called all the same; the journal has it
            Audit(capability.key).bug(error)
    if event.what is What.LIVE and event.ledger.paths.tls.is_dir():
        # A release may bring new domains; the certificates for these have been asked for by now.
        certificates(event.ledger)


def aside(work: Callable[[], None], apart: Event | None = None) -> None:
    """Do the work in a fork without our descriptors, so that nobody waits for it; the fork is killed after LIMIT.

    `apart`: in a unit of its own, the one of this event's worker. Then this returns only when the fork is in that unit:
    in ours it would be killed when our own service ends, which may happen next.
    """
    moved, moves = os.pipe() if apart else (-1, -1)
    if os.fork():
        if apart:
            os.close(moves)
            os.read(moved, 1)
            os.close(moved)
        return
    try:
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(LIMIT)
        detach({moves}, "shipit-event")
        if apart:
            release = apart.release
            with suppress(Failure), Agent.connect(apart.ledger.paths.layout.agent_socket) as agent:
                agent.adopt(release.app, release.number)
            os.close(moves)
        work()
    finally:
        os._exit(0)
