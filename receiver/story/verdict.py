"""How a release ends: the only place where its verdict is written down, and where others learn of it.

The verdict comes first and is durable. Then the capabilities that asked for the event are told, in a process of its
own: one that fails, hangs or crashes changes nothing for the release, or for whoever waits for it.
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

# Seconds for all capabilities together to do what one event asks of them.
LIMIT = 120


def opened(ledger: Ledger, release: Release) -> None:
    """It has its number, and somebody works on it."""
    tell(Event(What.OPENED, release, ledger))


def live(ledger: Ledger, release: Release) -> Release:
    """It serves: `current` says so already."""
    return _ended(ledger, release, Status.LIVE, What.LIVE)


def failed(ledger: Ledger, release: Release, reason: str) -> Release:
    """It was not made live; nothing of it is left but record and log, and its slug for the next try (deploy.put_away)."""
    return _ended(ledger, release, Status.FAILED, What.FAILED, reason)


def cancelled(ledger: Ledger, release: Release, reason: str) -> Release:
    """Somebody wanted it not to be made live."""
    return _ended(ledger, release, Status.CANCELLED, What.CANCELLED, reason)


def retired(ledger: Ledger, number: int) -> None:
    """A newer release replaced it, and its processes were told to end."""
    if _hearers(What.RETIRED):
        tell(Event(What.RETIRED, ledger.release(number), ledger))


def crashed(ledger: Ledger, number: int, process: TypeName, index: int, *, apart: bool = False) -> None:
    """A process of it ends again and again. For whoever notices: aftercare, and doctor, which at boot is a service whose
    end would end who tells, and which has no network: `apart` of it."""
    if _hearers(What.CRASHED):
        tell(Event(What.CRASHED, ledger.release(number), ledger, process, index), apart=apart)


def unreached(ledger: Ledger, reason: str) -> None:
    """What the app follows cannot be reached, or is not taken, and this is the first time. For story/pull.py."""
    release = ledger.current()
    if release is not None and _hearers(What.UNREACHED):
        tell(Event(What.UNREACHED, release, ledger, reason=reason))


def run_failed(ledger: Ledger, number: int, process: TypeName, how: str) -> None:
    """A run by the clock did not end with 0. For a process that has nothing else to do: it waits for the capabilities."""
    if hearers := _hearers(What.RUN_FAILED):
        tell_each(hearers, Event(What.RUN_FAILED, ledger.release(number), ledger, process, 1, how))


def certificates(ledger: Ledger) -> None:
    """Tell of names of the app's without a certificate, or with one that ends soon, as far as nobody knows. For a process
    that has nothing else to do: it waits for the capabilities."""
    release, hearers = ledger.current(), _hearers(What.CERTIFICATE)
    if release is not None and hearers:
        for reason in tls.news(ledger):
            tell_each(hearers, Event(What.CERTIFICATE, release, ledger, reason=reason))


def storage(ledger: Ledger, reason: str) -> None:
    """Its data takes most of what it may, or more. For a process that has nothing else to do: it waits for the capabilities."""
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
    """Tell the event, in a process of its own, to every capability that wants it; returns at once."""
    if hearers := _hearers(event.what):
        # A machine that can start no process has told its worker so already.
        with suppress(OSError):
            aside(lambda: tell_each(hearers, event), event if apart else None)


def tell_each(hearers: Sequence[Capability], event: Event) -> None:
    for capability in hearers:
        try:
            capability.on(event)
        except Exception as error:  # noqa: BLE001 - the next one is told all the same; an administrator finds it
            Audit(capability.key).bug(error)
    if event.what is What.LIVE and event.ledger.paths.tls.is_dir():
        # What it brought of names has been asked for by now.
        certificates(event.ledger)


def aside(work: Callable[[], None], apart: Event | None = None) -> None:
    """Do it in a fork that has none of our descriptors, so that nobody waits for it, and that LIMIT ends.

    `apart`: in a unit of its own, as the worker of this event's release. This returns when the fork is in there: the end of
    our own unit, which may be next, would end it anywhere else.
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
