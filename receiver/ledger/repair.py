"""Mending a ledger that was damaged from outside, by a failing disk or by hand. Nothing is thrown away.

shipit's own writes are atomic (system/disk.py), so a deploy never needs this; `doctor --fix` does it.
"""

from __future__ import annotations

from contextlib import suppress

from receiver.errors import Failure, NotFound
from receiver.ledger.ledger import FILE_MODE, Ledger
from receiver.model import Status, decode_app_state, decode_release
from receiver.records import Corrupt
from receiver.system import disk


def repair(ledger: Ledger) -> list[str]:
    """Make every file of the ledger readable again; returns what was done. The caller has the app's turn.

    Raises Corrupt if app.json or the live release's record is damaged, and its copy, too.
    """
    damaged = [number for number in ledger.numbers() if is_damaged(ledger, number)]
    done = restore_state(ledger)
    done += [told for number in damaged if (told := restore_record(ledger, number))]
    done += find_current(ledger)
    done += [put_aside(ledger, number) for number in damaged if is_damaged(ledger, number)]
    return done


def is_damaged(ledger: Ledger, number: int) -> bool:
    """Whether the record cannot be read, or is missing although the release was live."""
    try:
        ledger.release(number)
    except NotFound:
        return ledger.paths.release(number).record_copy.exists()
    except Corrupt:
        return True
    return False


def restore_state(ledger: Ledger) -> list[str]:
    """Put back app.json from its copy; raises Corrupt when that is damaged too."""
    try:
        ledger.state()
    except Corrupt as damage:
        try:
            raw = ledger.paths.state_copy.read_bytes()
        except FileNotFoundError:
            raise damage from None
        decode_app_state(raw)
        disk.write_atomically(ledger.paths.state, raw, FILE_MODE)
        return ["app.json was damaged and is restored from its copy"]
    return []


def restore_record(ledger: Ledger, number: int) -> str:
    """Put back a record from its copy; "" if there is no good one."""
    paths = ledger.paths.release(number)
    try:
        raw = paths.record_copy.read_bytes()
        decode_release(raw)
    except (FileNotFoundError, Corrupt):
        return ""
    disk.write_atomically(paths.record, raw, FILE_MODE)
    return f"the record of v{number} was damaged and is restored from its copy"


def find_current(ledger: Ledger) -> list[str]:
    """If `current` leads nowhere, point it at the newest release that was live: that is where it led."""
    try:
        ledger.current_number()
    except Corrupt:
        for number in reversed(ledger.numbers()):
            with suppress(Failure):
                release = ledger.release(number)
                if release.status is Status.LIVE and (ledger.is_whole(release) or not release.slug):
                    ledger.commit(release)
                    return [f"`current` was lost and points at {release.name} again, which was live last"]
        raise
    return []


def put_aside(ledger: Ledger, number: int) -> str:
    """Rename a damaged record, so that the history goes on without it; its number stays used. Never the live one's."""
    paths = ledger.paths.release(number)
    if number == ledger.current_number():
        raise Corrupt(f"The record of {ledger.app} v{number}, which is live, is damaged, and it has no good copy.")
    aside = paths.record.with_name("release.json.damaged")
    paths.record.rename(aside)
    disk.fsync_dir(paths.dir)
    return f"the record of v{number} was damaged and is put aside: {aside}"
