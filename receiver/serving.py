"""How nginx serves an app: the section `proxy:` of its shipit.yml, as a value. The defaults are chosen, not nginx's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from receiver.errors import Rejected
from receiver.records import Format, Record, flag, own, pairs, text, whole

LONGEST_TIMEOUT = 86_400  # s
LARGEST_BODY = 1_048_576  # MiB
LARGEST_HEADER = 256  # KiB
MOST_CONNECTIONS = 100_000

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}", re.ASCII)
# What stands between double quotes in nginx's configuration: no quote, no backslash, no variable, one line.
_VALUE = re.compile(r"[ !#%-\[\]-~]{0,4000}", re.ASCII)
# These say how a message is sent or who sends it; nginx writes them itself.
_OWN = frozenset(
    {"connection", "content-length", "date", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade"}
)


def header(name: str, value: str) -> tuple[str, str]:
    """Parse a response header; raises Rejected with the rule."""
    if not _HEADER.fullmatch(name) or name.lower() in _OWN:
        raise Rejected(
            f"{name[:60]!a} is no header that an app can set here.",
            hint="Letters, digits and dashes, as in X-Frame-Options; not what nginx writes itself (Date, Server …).",
        )
    if not _VALUE.fullmatch(value):
        raise Rejected(
            f"The value of {name} cannot be put into nginx's configuration.",
            hint='ASCII in one line without ", \\ and $; let the app itself send it.',
        )
    return name, value


def _headers(value: Any, format: Format) -> tuple[tuple[str, str], ...]:
    return tuple(header(name, said) for name, said in pairs(text, text)(value, format))


@dataclass(frozen=True)
class Serving(Record):
    """`timeout`: how long (s) nginx waits for the app to say anything, 1–86400. `body`: the largest request body (MiB;
    0: none is too large). `header`: the largest header of a request or a response (KiB). `buffering`: nginx takes in
    what an app answers at the speed of the app, and passes it on at the speed of the client; `upload_buffering`: it
    takes in a request body whole before the app is asked. `keep`: connections to the app are kept for the next
    request. `connections`: how many requests and websockets may be open at once, 0 for the server's default. `headers`:
    what is added to each response.
    """

    timeout: int = field(default=60, metadata=own(whole(LONGEST_TIMEOUT, low=1)))
    body: int = field(default=100, metadata=own(whole(LARGEST_BODY)))
    header: int = field(default=16, metadata=own(whole(LARGEST_HEADER, low=4)))
    buffering: bool = field(default=True, metadata=own(flag))
    upload_buffering: bool = field(default=True, metadata=own(flag))
    keep: bool = field(default=True, metadata=own(flag))
    connections: int = field(default=0, metadata=own(whole(MOST_CONNECTIONS)))
    headers: tuple[tuple[str, str], ...] = field(default=(), metadata=own(_headers))
