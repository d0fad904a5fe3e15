"""Reads standard input, with limits for its size and for the time that it may take."""

from __future__ import annotations

from receiver.errors import Rejected
from receiver.system.ends import Ends, arriving

PATIENCE = 60.0  # seconds without a byte
ALTOGETHER = 600.0


def read_input(most: int, hint: str) -> bytes:
    """All of standard input. Raises Rejected if it is larger than `most` bytes or takes too long; `hint` shows how to
    give it."""
    parts: list[bytes] = []
    size = 0
    try:
        for part in arriving(0, Ends(ALTOGETHER, PATIENCE)):
            parts.append(part)
            size += len(part)
            if size > most:
                raise Rejected(
                    f"More than {most // 1024} KiB came on standard input.", holds="Nothing was changed.", hint=hint
                )
    except TimeoutError:
        raise Rejected(
            "Standard input did not come to its end: it took too long.", holds="Nothing was changed.", hint=hint
        ) from None
    return b"".join(parts)


def read_text(most: int, hint: str) -> str:
    """The same as text; raises Rejected if it is not UTF-8."""
    try:
        return read_input(most, hint).decode()
    except UnicodeDecodeError:
        raise Rejected("Standard input is not UTF-8.", holds="Nothing was changed.", hint=hint) from None


def read_line(most: int, hint: str) -> str:
    """One line, such as a password, without its line break."""
    return read_text(most, hint).rstrip("\r\n")
