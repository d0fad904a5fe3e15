"""Reads an RPM package's metadata and files without rpm.

https://rpm-software-management.github.io/rpm/manual/format_v4.html: a lead, two headers (the first of signatures), and
a compressed cpio archive. Its signatures are not checked: the gate has checked who sent it.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any, NamedTuple, cast

from receiver.errors import Rejected
from receiver.runtimes.package.deb import MOST, MOST_FILES, UNITS
from receiver.runtimes.package.plain import FOREIGN, plain
from receiver.runtimes.packed import LONGEST, Packed

MAGIC = b"\xed\xab\xee\xdb"
LEAD, SOURCE = 96, 1
_HEADER = b"\x8e\xad\xe8\x01"
MOST_HEADER, MOST_TAGS, MOST_TEXTS = 2**25, 2**14, 2**18
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,99}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~^_]{0,60}", re.ASCII)
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_]{0,30}", re.ASCII)
_PAYLOADS = ("gzip", "xz", "lzma", "bzip2", "zstd")
# The numbers of the tags, and of their types.
NAME, VERSION, RELEASE, EPOCH, LICENSE, ARCH, PROVIDES, REQUIRES = 1000, 1001, 1002, 1003, 1014, 1022, 1047, 1049
_FORMAT, _COMPRESSOR = 1124, 1125
# Only these are read, and each once: a header could claim that every tag covers all of its data.
_READ = (NAME, VERSION, RELEASE, EPOCH, LICENSE, ARCH, PROVIDES, REQUIRES, _FORMAT, _COMPRESSOR)
_INT32, _STRING, _STRINGS, _TEXT = 4, 6, 8, 9


class Entry(NamedTuple):
    """A member of the archive. Read `content` before the next member. Of several hard links to one file (equal `same`),
    only the last has the content. `path` is relative and without `..`."""

    path: str
    mode: int
    size: int
    same: tuple[int, ...]
    content: IO[bytes]


class Rpm:
    """An open package: first the data of its header, then its files."""

    def __init__(self, file: IO[bytes], most: int = MOST) -> None:
        file.seek(0)
        lead = file.read(LEAD)
        if lead[:4] != MAGIC or len(lead) < LEAD:
            raise Rejected("This is no RPM package.")
        if struct.unpack(">H", lead[6:8])[0] == SOURCE:
            raise Rejected("This is a source package of RPM.", hint="Build it: rpmbuild --rebuild FILE; and send that.")
        size = _header(file)[1]
        _whole(file, -size % 8)
        self._tags = _header(file)[0]
        self._file, self._most = file, most

    def text(self, tag: int) -> str:
        return next(iter(self.texts(tag)), "")

    def texts(self, tag: int) -> list[str]:
        kind, found = self._tags.get(tag, (0, b""))
        if kind not in (_STRING, _STRINGS, _TEXT):
            return []
        return [word.decode(errors="replace") for word in found.split(b"\0")[:-1]]

    def number(self, tag: int) -> int:
        kind, found = self._tags.get(tag, (0, b""))
        return int(struct.unpack(">I", found[:4])[0]) if kind == _INT32 and len(found) >= 4 else 0

    def name(self) -> tuple[str, str, str, str]:
        """Name, version, release, architecture; raises Rejected if one of them is invalid."""
        found = tuple(self.text(tag) for tag in (NAME, VERSION, RELEASE, ARCH))
        for text, grammar in zip(found, (_NAME, _VERSION, _VERSION, _ARCHITECTURE), strict=True):
            if not grammar.fullmatch(text):
                raise Rejected(
                    "The RPM package does not say what it is called: its header has no good name or version."
                )
        return cast("tuple[str, str, str, str]", found)

    def entries(self) -> Iterator[Entry]:
        """The files; can be read only once."""
        form, kind = self.text(_FORMAT) or "cpio", self.text(_COMPRESSOR) or "gzip"
        if form != "cpio" or kind not in _PAYLOADS:
            raise Rejected(
                f"The RPM package holds its files as {form[:20]!a} by {kind[:20]!a}, which is not known here."
            )
        yield from _cpio(plain(kind, self._file, self._most))


def _header(file: IO[bytes]) -> tuple[dict[int, tuple[int, bytes]], int]:
    """The tags of a header that are used, each with its type and bytes, and the length of the header's data."""
    head = _whole(file, 16)
    count, size = struct.unpack(">II", head[8:])
    if head[:4] != _HEADER or count > MOST_TAGS or size > MOST_HEADER:
        raise Rejected("The RPM package is damaged: it has a header that is none.")
    index = [struct.unpack(">IIII", _whole(file, 16)) for _ in range(count)]
    store = _whole(file, size)
    found: dict[int, tuple[int, bytes]] = {}
    for tag, kind, offset, number in index:
        if offset > size:
            raise Rejected("The RPM package is damaged: its header points out of itself.")
        if tag not in _READ or tag in found:
            continue
        end = offset + 4
        if kind in (_STRING, _STRINGS, _TEXT):
            if number > MOST_TEXTS:
                raise Rejected(f"The RPM package provides, or requires, more than {MOST_TEXTS} others.")
            end = offset
            for _ in range(1 if kind == _STRING else number):
                end = store.find(b"\0", end) + 1
                if not end:
                    raise Rejected("The RPM package is damaged: a text in its header has no end.")
        found[tag] = kind, store[offset:end]
    return found, size


def _whole(file: IO[bytes], size: int) -> bytes:
    raw = bytearray()
    while len(raw) < size:
        part = file.read(size - len(raw))
        if not part:
            raise Rejected("The RPM package is damaged or cut off.", hint="Send it again.")
        raw += part
    return bytes(raw)


class _Content:
    """The bytes of one member, from the stream's position on."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self.left = stream, size

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        raw = _whole(self._stream, wanted)
        self.left -= len(raw)
        return raw


def _cpio(stream: IO[bytes]) -> Iterator[Entry]:
    """The members of a cpio archive (cpio(5), New ASCII Format)."""
    for _ in range(MOST_FILES):
        head = _whole(stream, 110)
        if head[:6] not in (b"070701", b"070702"):
            raise Rejected("The RPM package is damaged: the archive in it is none that rpm writes.")
        try:
            fields = [int(head[at : at + 8], 16) for at in range(6, 110, 8)]
        except ValueError as error:
            raise Rejected("The RPM package is damaged: a head in its archive is no number.") from error
        inode, mode, links, size, length = fields[0], fields[1], fields[4], fields[6], fields[11]
        if not 1 < length <= 4096:
            raise Rejected("The RPM package holds a name that is too long.")
        raw = _whole(stream, length)[:-1]
        _whole(stream, -(110 + length) % 4)
        if raw == b"TRAILER!!!":
            return
        content = _Content(stream, size)
        path = _clean(raw.decode(errors="surrogateescape"))
        if path:
            same = (inode, *fields[7:9]) if links > 1 and stat.S_ISREG(mode) else ()
            yield Entry(path, mode, size, same, cast(IO[bytes], content))
        while content.left:
            content.read(2**18)
        _whole(stream, -size % 4)
    raise Rejected(f"The RPM package holds more than {MOST_FILES} files.")


def _clean(name: str) -> str:
    words = name.removeprefix("./").lstrip("/").split("/")
    if words in ([""], ["."]):
        return ""
    if any(word in ("", ".", "..") for word in words) or "\0" in name:
        raise Rejected(f"The RPM package holds {name[:80]!a}, which is no path of a file.")
    return "/".join(words)


def look(file: IO[bytes], most: int = MOST) -> Packed:
    """The package's metadata; raises Rejected if it is no valid package, and the decompressors' errors."""
    rpm = Rpm(file, most)
    name, version, release, architecture = rpm.name()
    lines = [
        f"Name: {name}",
        f"Epoch: {rpm.number(EPOCH)}",
        f"Version: {version}-{release}",
        f"Architecture: {architecture}",
    ]
    lines += [f"License: {rpm.text(LICENSE)[:200]}", *(f"Requires: {need[:300]}" for need in rpm.texts(REQUIRES))]
    beside = {"header": "".join(f"{line}\n" for line in lines if line.isprintable()).encode(errors="replace")[:LONGEST]}
    paths = []
    for entry in rpm.entries():
        if not stat.S_ISDIR(entry.mode) and not entry.path.startswith("usr/share/doc/"):
            paths.append(entry.path)
        unit = UNITS.fullmatch(entry.path)
        if unit and stat.S_ISREG(entry.mode) and entry.size:
            if entry.size > LONGEST:
                raise Rejected(f"{entry.path[:80]!a} in the RPM package is larger than {LONGEST // 1024} KiB.")
            beside[f"units/{unit[1]}"] = entry.content.read()
    listed = "".join(f"{path}\n" for path in sorted(paths) if path.isprintable())
    beside["files"] = listed.encode(errors="replace")[:LONGEST]
    return Packed(name, f"{name}-{version}-{release}.{architecture}.rpm", beside)


def of_bytes(raw: bytes) -> Packed | None:
    """The same for a small package in memory; None if it cannot be read."""
    try:
        return look(BytesIO(raw), 2**26)
    except (Rejected, OSError, EOFError, ValueError, OverflowError, MemoryError, struct.error):
        return None
    except Exception as error:
        if type(error).__name__ not in FOREIGN:
            raise
        return None


def needs(rpm: Rpm) -> list[str]:
    """The names that it requires and does not provide itself, without those that concern rpm."""
    own: set[Any] = {*rpm.texts(PROVIDES)}
    found = dict.fromkeys(rpm.texts(REQUIRES))
    return [need for need in found if need not in own and not need.startswith(("rpmlib(", "config("))]
