"""After the switch: prune, let the old release finish its requests, stop it or keep it warm. Failures here only
warn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from receiver.errors import Failure
from receiver.ledger import pool
from receiver.model import Listen, Release
from receiver.proxy.drain import wait_until_idle
from receiver.sources.all import source_of, trim
from receiver.story import checkpoint, verdict
from receiver.story.context import AppContext
from receiver.system import disk

# A release is kept warm only while at least this part of the machine's memory is free.
FREE_MEMORY = 0.25
# How many of the newest releases every prune looks at; older ones have a slug, or were pruned long ago.
RECENT = 200


def retire(context: AppContext, release: Release) -> None:
    """Let every older release's processes finish their requests, then stop them; the previous one's may be kept warm.

    Needs no lock, so the next push does not wait for a slow request: this touches only older releases, which no other
    worker changes. A rollback makes a new release, or takes over a warm one, which is left alone here as soon as a
    rollback can find it. If the worker or the agent is killed here, processes or units stay behind; the next release's
    retiring, or reconcile, removes them.
    """
    try:
        others = context.agent.remainders(release.app) - {release.runs_as}
        old = sorted(number for number in others if number < release.number)
        if release.warm and memory_is_free() and context.agent.keep_warm(release.app, release.number):
            old = [number for number in old if number != context.ledger.release(release.previous).runs_as]
        if old:
            wait_until_idle(sockets(context, old), longest_drain(context, old))
        for number in old:
            context.agent.stop(release.app, number, wait=False)
            verdict.retired(context.ledger, number)
    except Failure as failure:
        context.say.warn(f"{release.name} is live, but the old release was not put away: {failure.message}")
    checkpoint.reach("retired")


def come_to_rest(context: AppContext, release: Release) -> None:
    """When the old release has no connections left, undo what the switch needed of nginx (ledger/pool.py).

    If another change begins meanwhile, its worker does this; until it is done, requests cost nginx a little more.
    """
    time.sleep(pool.CLEAN)
    with suppress(Failure, OSError), disk.locked(context.paths.app_lock, wait=False):
        if context.ledger.current_number() == release.number:
            context.ledger.rest()


def memory_is_free(told: Path = Path("/proc/meminfo")) -> bool:
    """Whether the machine has enough free memory to keep a release warm for a rollback (proc(5), MemAvailable)."""
    known = dict(line.split()[:2] for line in told.read_text().splitlines())
    return int(known["MemAvailable:"]) >= FREE_MEMORY * int(known["MemTotal:"])


def sockets(context: AppContext, numbers: Sequence[int]) -> list[Path]:
    """The sockets on which the processes of these releases take requests."""
    return [
        context.paths.release(number).socket(process.type, index)
        for number in numbers
        for process, index in context.ledger.release(number).running()
        if process.listen is not Listen.NONE
    ]


def longest_drain(context: AppContext, numbers: Sequence[int]) -> int:
    """How many seconds the slowest of these releases may take to finish its requests."""
    return max([0, *(p.drain for n in numbers for p in context.ledger.release(n).processes)])


def prune(context: AppContext) -> None:
    """Remove slugs, config and commits of releases that nothing needs any more; their records and logs stay.

    A release that still finishes its requests may read its files, so a later prune takes it: many pushes may come
    within one drain.
    """
    numbers = context.ledger.numbers()
    # Every 50th prune looks at the whole history, for what an interrupted prune left behind; the others only at the
    # newest.
    recent = numbers if numbers and numbers[-1] % 50 == 0 else {*numbers[-RECENT:], *context.ledger.built()}
    stored = [number for number in sorted(recent, reverse=True) if is_stored(context, number)]
    try:
        # Read after the list of numbers: a release that is opened in between is in neither.
        kept = context.ledger.kept()
        gone = [number for number in stored if number not in kept]
        if gone:
            busy = in_use(context)
            gone = [number for number in gone if number not in busy]
        if gone:
            context.agent.prune(context.ledger.app, gone)
        for number in gone:
            context.paths.release(number).sockets_link.unlink(missing_ok=True)
            if origin := context.ledger.release(number).origin:
                source_of(context.paths, origin).forget(number)
        trim(context.paths, context.settings.cache * 2**20)
    except Failure as failure:
        context.say.warn(f"Old releases were not pruned: {failure.message}")


def in_use(context: AppContext) -> set[int]:
    """The releases that have running processes, and those whose files these use."""
    running = context.agent.in_use(context.ledger.app)
    return running.union(*(context.ledger.release(number).runs_from for number in running))


def is_stored(context: AppContext, number: int) -> bool:
    """Whether anything is left to prune: the sockets link goes last, so an interrupted prune is continued."""
    paths = context.paths.release(number)
    return paths.sockets_link.is_symlink() and paths.record.exists()
