"""One line of JSON for every command: who, with which key, from where, which command, its exit code. No values. The
line goes to the journal, or, without one, to a file of shipit's own.
"""

from __future__ import annotations

import json
import os
import syslog
import time
from contextlib import suppress
from pathlib import Path

from receiver.caller import Caller
from receiver.paths import SHIPIT_USER, Layout
from receiver.system.journal import JOURNAL

IDENT = "shipit"
LARGEST = 10 * 2**20  # bytes of the file; one older one is kept


# Any app can use any identifier in the journal, but _UID comes from the kernel.
IN_JOURNAL = f"journalctl -t {IDENT} _UID=$(id -u {SHIPIT_USER}) -n 50"


def where() -> str:
    """What the administrator types to read the log."""
    return IN_JOURNAL if _has_journal() else f"tail -n 50 {Layout().audit}"


class Audit:
    """Times one command; `end` writes its line. If the line cannot be written, it is lost; no command fails for
    that."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._began = time.monotonic()

    def bug(self, error: BaseException) -> None:
        """Write where an unexpected error came from: for the administrator, not for the caller."""
        import traceback

        _write(syslog.LOG_ERR, "".join(traceback.format_exception(error)).splitlines())

    def end(self, caller: Caller | None, name: str, verb: str, result: int) -> None:
        """`name` is the key's name as the gate got it, `verb` one of a closed set, `result` the exit code."""
        line = {
            "key": caller.name if caller else name,
            "fingerprint": caller.fingerprint if caller else "",
            "role": caller.role.value if caller else "",
            "from": self._source,
            "verb": verb,
            "app": ",".join(dict.fromkeys(caller.touched)) if caller else "",
            "result": result,
            "seconds": round(time.monotonic() - self._began, 3),
        }
        _write(syslog.LOG_INFO if result == 0 else syslog.LOG_NOTICE, [json.dumps(line)])


def _has_journal() -> bool:
    return os.path.exists(JOURNAL)  # noqa: PTH110 - fast


def _write(priority: int, lines: list[str]) -> None:
    if _has_journal():
        syslog.openlog(IDENT, syslog.LOG_PID, syslog.LOG_AUTHPRIV)
        for line in lines:
            syslog.syslog(priority, line)
        return
    with suppress(OSError):
        _append(Layout().audit, "".join(f"{time.strftime('%FT%TZ', time.gmtime())} {line}\n" for line in lines))


def _append(path: Path, text: str) -> None:
    with suppress(FileNotFoundError):
        if path.stat().st_size > LARGEST:
            path.replace(path.with_suffix(".log.1"))
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode(errors="backslashreplace"))
    finally:
        os.close(fd)
