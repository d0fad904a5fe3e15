"""Finds the entries of a tar file that docker's or podman's `save` wrote, by their headers; reads no content."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from typing import IO, NamedTuple

from receiver.errors import Rejected

BLOCK = 512
MAX_MEMBERS, MAX_NAME = 5_000, 4096
AGAIN = "Send it again: docker save IMAGE | ssh HOST deploy APP -"


class Member(NamedTuple):
    """An entry of a tar archive; `start`: the offset of its content."""

    name: str
    kind: bytes
    start: int
    size: int
    link: str


class Members:
    """The entries of a tar file, found by reading only headers; raises Rejected for what no `save` writes. `cut`: the
    content of the last entry may be missing."""

    def __init__(self, file: IO[bytes], *, cut: bool = False) -> None:
        self._fd, self._cut = file.fileno(), cut
        self._end = os.fstat(self._fd).st_size

    def __iter__(self) -> Iterator[Member]:
        at, count = 0, 0
        longer: dict[str, bytes] = {}
        while True:
            head = os.pread(self._fd, BLOCK, at)
            if len(head) < BLOCK:
                raise Rejected("The image is cut off.", holds="Nothing was received.", hint=AGAIN)
            if not any(head):
                return
            count += 1
            if count > MAX_MEMBERS:
                raise bad(f"it has more than {MAX_MEMBERS} entries")
            if _number(head[148:156]) != sum(head) - sum(head[148:156]) + 8 * 32:
                raise bad("a header is damaged")
            size, kind = _number(head[124:136]), head[156:157]
            start = at + BLOCK
            if size > self._end - start and not self._cut:
                raise Rejected("The image is cut off.", holds="Nothing was received.", hint=AGAIN)
            at = start + (size + BLOCK - 1) // BLOCK * BLOCK
            if kind in (b"L", b"K", b"x", b"g"):
                if size > MAX_NAME * 4:
                    raise bad("a name is too long")
                longer |= _longer(kind, os.pread(self._fd, size, start))
                continue
            prefix = head[345:500] if head[257:262] == b"ustar" and head[257:265] != b"ustar  \0" else b""
            short = b"/".join(part for part in (_text(prefix), _text(head[:100])) if part)
            name = longer.get("path", short).decode(errors="surrogateescape")
            link = longer.get("linkpath", _text(head[157:257])).decode(errors="surrogateescape")
            if "size" in longer:
                raise bad("an entry is larger than 8 GiB")
            longer = {}
            yield Member(clean(name), kind, start, size, link)


def until_damage(members: Members) -> Iterator[Member]:
    try:
        yield from members
    except Rejected:
        return


def _number(field: bytes) -> int:
    """A number of a tar header: octal digits, or binary for large numbers."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip()
    if text and (not text.isdigit() or set(text) & set(b"89")):
        raise bad("a header is damaged")
    return int(text or b"0", 8)


def _longer(kind: bytes, raw: bytes) -> dict[str, bytes]:
    """What an extended header says about the next entry (pax, or GNU's for long names)."""
    if kind == b"g":
        return {}
    if kind != b"x":
        return {"path" if kind == b"L" else "linkpath": _text(raw)}
    found = {}
    while raw:
        length = raw.partition(b" ")[0]
        if not length.isdigit() or not len(length) + 1 < int(length) <= len(raw):
            raise bad("a header is damaged")
        key, _, value = raw[len(length) + 1 : int(length) - 1].partition(b"=")
        if key in (b"path", b"linkpath", b"size"):
            found[key.decode()] = value
        raw = raw[int(length) :]
    return found


def _text(field: bytes) -> bytes:
    return field.split(b"\0")[0]


def clean(name: str) -> str:
    """The name of an entry without its `./`; raises Rejected for an invalid name, or one that leads out of the
    archive."""
    if name.startswith("/") or not name.isprintable() or len(name) > MAX_NAME:
        raise bad(f"it has an entry {name[:60]!a}")
    found = posixpath.normpath(name)
    if found == ".." or found.startswith("../"):
        raise bad(f"it has an entry {name[:60]!a}, which leads out of it")
    return found


def bad(what: str) -> Rejected:
    return Rejected(f"The image cannot be taken: {what}.", holds="Nothing was received.", hint=AGAIN)
