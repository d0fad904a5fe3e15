"""Collects all mistakes of a manifest, each with file and line, so that they are reported at once."""

from __future__ import annotations

from collections.abc import Iterable

from receiver.errors import Rejected

SHOWN = 12


class Problems:
    """Collects mistakes; `check` raises one Rejected for all of them."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._hints: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._told)

    def add(self, where: str, message: str, hint: str = "") -> None:
        """`where` is `Procfile:3`, or just a file if there is no line to name."""
        self._told.append(f"{where}: {message}")
        if hint and hint not in self._hints:
            self._hints.append(hint)

    def check(self) -> None:
        """Raises Rejected with the first dozen problems; returns when there are none."""
        if not self._told:
            return
        told = self._told[:SHOWN]
        if len(self._told) > SHOWN:
            told.append(f"... and {len(self._told) - SHOWN} more.")
        raise Rejected("\n".join(told), hint="\n".join(self._hints[:3]))


def reject(where: str, message: str, hint: str = "") -> Rejected:
    """A Rejected for one mistake that ends the reading; the caller raises it."""
    return Rejected(f"{where}: {message}", hint=hint)


def shown(text: str) -> str:
    """User's text, safe to print: quoted, control characters escaped, cut."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def near(word: str, known: Iterable[str]) -> str:
    """The known word that is nearest to this one, "" if none is near."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no known word is near."""
    found = near(word, known)
    return f" Did you mean {found!r}?" if found else ""


def decode(name: str, raw: bytes, limit: int) -> str:
    """The text of a file; raises Rejected when it is larger than `limit` bytes, not UTF-8 or holds a NUL."""
    if len(raw) > limit:
        raise reject(name, f"The file is larger than {limit // 1024} KiB.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise reject(f"{name}:{line}", "This is not UTF-8 text.") from error
    if "\0" in text:
        raise reject(f"{name}:{text.count(chr(10), 0, text.index(chr(0))) + 1}", "There is a NUL character.")
    return text
