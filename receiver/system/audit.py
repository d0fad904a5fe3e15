"""One line of JSON in the journal for every command: who, with which key, from where, what, how it ended. No values."""

from __future__ import annotations

import json
import syslog
import time

from receiver.caller import Caller
from receiver.paths import SHIPIT_USER

IDENT = "shipit"
# How the administrator reads it. An app can call itself anything in the journal, but its _UID is the kernel's word.
WHERE = f"journalctl -t {IDENT} _UID=$(id -u {SHIPIT_USER}) -n 50"


class Audit:
    """Times one command; `end` writes its line. syslog(3) loses it silently where nobody listens."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._began = time.monotonic()

    def bug(self, error: BaseException) -> None:
        """Where an unexpected error came from: for the administrator, not for the caller."""
        import traceback

        syslog.openlog(IDENT, syslog.LOG_PID, syslog.LOG_AUTHPRIV)
        for line in "".join(traceback.format_exception(error)).splitlines():
            syslog.syslog(syslog.LOG_ERR, line)

    def end(self, caller: Caller | None, name: str, verb: str, result: int) -> None:
        """`name` is the key's name as the gate was told, `verb` one of a closed set, `result` the exit code."""
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
        syslog.openlog(IDENT, syslog.LOG_PID, syslog.LOG_AUTHPRIV)
        syslog.syslog(syslog.LOG_INFO if result == 0 else syslog.LOG_NOTICE, json.dumps(line))
