"""Makes the processes, boot links and vhost of an app equal to its ledger, which is the truth. Repeatable.

The caller holds the app's lock: no release is being made, so everything that runs beside the live release is a
remainder.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext

from receiver import settings
from receiver.engines.all import Engines
from receiver.engines.base import ProcessState
from receiver.errors import Failure
from receiver.ledger.ledger import Ledger, apps
from receiver.names import AppName
from receiver.paths import Layout
from receiver.proxy import nginx
from receiver.system import disk

UP = (ProcessState.RUNNING, ProcessState.STARTING)


def reconcile(layout: Layout, engines: Engines, app: AppName) -> list[str]:
    """Returns what was done, one line each; nothing if all was as it should be."""
    ledger = Ledger(layout.app(app))
    state = ledger.state()
    current = None if state.stopped else ledger.current()
    done = []
    engines.prepare(app)
    running = engines.processes(app)
    if current is not None:
        current.must_be_known()
    if current is not None and current.slug:
        up = {(p.process, p.index) for p in running if p.release == current.runs_as and p.state in UP}
        missing = [f"{p.type}.{i}" for p, i in current.running() if (p.type, i) not in up]
        if missing:
            engines.start(current)
            done.append(f"started {', '.join(missing)} of {current.name}")
    engines.boot_with(app, current, state.suspended)
    # After a reboot between the switch and the retiring, only unit files of the old release are left.
    remainders = {p.release for p in running} | engines.defined(app)
    wanted = {current.runs_as, *engines.warm(app)} if current else set()
    for number in sorted(remainders - wanted - left_to_workers(ledger, remainders)):
        engines.stop(app, number, wait=False)
        done.append(f"stopped v{number}")
    if nginx.apply(layout, settings.load(layout.settings), app):
        done.append("reloaded nginx")
    return done


def left_to_workers(ledger: Ledger, remainders: Collection[int]) -> set[int]:
    """The releases among `remainders` that a living worker will deal with: the one that it makes; or, if it made the
    live one, the older ones, which still finish their requests."""
    live = ledger.current_number() or 0
    retiring = {number for number in remainders if number < live} if live and ledger.worker_lives(live) else set()
    return retiring | {number for number in remainders if ledger.worker_lives(number)}


def held(layout: Layout, app: AppName) -> AbstractContextManager[object]:
    """The app's lock, or BlockingIOError. Root must not create the file: then `shipit` could not lock it."""
    lock = layout.app(app).app_lock
    return disk.locked(lock, wait=False) if lock.exists() else nullcontext()


def reconcile_all(layout: Layout, engines: Engines) -> int:
    """Reconcile every app that nobody is changing, at boot; if one fails, the others are still reconciled."""
    code = 0
    for app in apps(layout):
        try:
            with held(layout, app):
                for line in reconcile(layout, engines, app):
                    print(f"{app}: {line}", flush=True)
        except BlockingIOError:
            print(f"{app}: a release is being made", flush=True)
        except Exception as error:  # noqa: BLE001 - printed and counted; the next app must come up all the same
            for line in error.lines() if isinstance(error, Failure) else [repr(error)]:
                print(f"{app}: {line}", flush=True)
            code = 1
    return code
