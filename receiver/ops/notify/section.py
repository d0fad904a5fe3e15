"""What a release keeps of its `notify:`, and the names that may be in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from receiver.errors import Rejected
from receiver.ops.base import What
from receiver.records import Record, many, own, parsed, text

KEY = "notify"
TOLD = (What.FAILED, What.LIVE, What.CRASHED, What.RUN_FAILED, What.UNREACHED, What.CERTIFICATE, What.STORAGE)
# Narrower than RFC 5322: common addresses, and nothing that sendmail(8) takes for an option.
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,250}", re.ASCII)


def address(given: str) -> str:
    """Parse an e-mail address; raises Rejected."""
    if not _ADDRESS.fullmatch(given):
        raise Rejected(f"{given[:60]!a} is no e-mail address.")
    return given


def event(given: str) -> str:
    """Parse the name of an event that can be reported; raises Rejected."""
    if given not in [what.value for what in TOLD]:
        raise Rejected(f"{given[:20]!a} is no event.", hint="Events: " + ", ".join(what.value for what in TOLD))
    return given


@dataclass(frozen=True)
class Notify(Record):
    """What a release keeps of its `notify:`; `webhook`, `secret` and `apprise` are names of config vars."""

    on: tuple[str, ...] = field(default=(), metadata=own(many(parsed(event))))
    webhook: str = field(default="", metadata=own(text))
    secret: str = field(default="", metadata=own(text))
    command: str = field(default="", metadata=own(text))
    email: tuple[str, ...] = field(default=(), metadata=own(many(parsed(address))))
    apprise: str = field(default="", metadata=own(text))
