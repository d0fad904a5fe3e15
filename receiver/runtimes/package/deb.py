"""Reads a Debian package's metadata (deb(5)) without dpkg: its name, its control file, and its systemd units."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any, cast

from receiver.errors import Rejected
from receiver.runtimes.package.plain import FOREIGN, plain
from receiver.runtimes.packed import LONGEST, Packed

MAGIC = b"!<arch>\n"
# The ending of a member's name → its compression (deb(5)).
KINDS = {"": "", ".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".bz2": "bzip2", ".lzma": "lzma"}
UNITS = re.compile(r"(?:usr/)?lib/systemd/system/([A-Za-z0-9][A-Za-z0-9@:._-]{0,99}\.service)", re.ASCII)
# The most bytes that a package's files may unpack to when it is read, and the most files.
MOST, MOST_FILES = 2**32, 200_000
_FIELD = re.compile(r"^(Package|Version|Architecture): *(\S+)\s*$", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}", re.ASCII)
_VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9.+~-]{0,99}", re.ASCII)
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,30}", re.ASCII)


def look(file: IO[bytes], most: int = MOST) -> Packed:
    """The package's metadata; raises Rejected if it is no valid package, and tarfile's and the decompressors'
    errors."""
    parts = dict(_members(file))
    if len(parts) != 3 or "debian-binary" not in parts:
        raise Rejected("This is no Debian package: it has other parts than a control and a data archive.")
    control = data = None
    for name, part in parts.items():
        kind = name.partition(".")[0]
        if kind == "control":
            control = _tar(name, part, most)
        elif kind == "data":
            data = _tar(name, part, most)
    if control is None or data is None:
        raise Rejected("This is no Debian package: its control or its data archive is missing.")
    told = next((raw for path, _, raw in _files(control, lambda path: path == "control") if path == "control"), b"")
    said = fields(told)
    if not said:
        raise Rejected(
            "The Debian package does not say what it is called: its control file has no good name or version."
        )
    name, version, architecture = said["Package"], said["Version"], said["Architecture"]
    beside, paths = {"control": told}, []
    for path, is_file, raw in _files(data, lambda path: UNITS.fullmatch(path) is not None):
        if is_file and not path.startswith("usr/share/doc/"):
            paths.append(path)
        if raw and (unit := UNITS.fullmatch(path)):
            beside[f"units/{unit[1]}"] = raw
    listed = "".join(f"{path}\n" for path in sorted(paths) if path.isprintable())
    beside["files"] = listed.encode(errors="replace")[:LONGEST]
    # dpkg's file names leave out the epoch and its colon.
    return Packed(name, f"{name}_{version.rpartition(':')[2]}_{architecture}.deb", beside)


def fields(control: bytes) -> dict[str, str]:
    """`Package`, `Version` and `Architecture` of a control file; {} if one of them is missing or invalid."""
    found = dict(_FIELD.findall(control.decode(errors="replace")))
    grammar = {"Package": _NAME, "Version": _VERSION, "Architecture": _ARCHITECTURE}
    return found if all(pattern.fullmatch(found.get(name, "")) for name, pattern in grammar.items()) else {}


def _members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """The members of an ar archive, at most three (ar(5))."""
    file.seek(0)
    if file.read(8) != MAGIC:
        raise Rejected("This is no Debian package.")
    for _ in range(3):
        head = file.read(60)
        if len(head) < 60 or head[58:] != b"`\n" or not head[48:58].strip().isdigit():
            raise Rejected("The Debian package is damaged or cut off.", hint="Send it again.")
        size, at = int(head[48:58]), file.tell()
        file.seek(0, 2)
        if at + size > file.tell():
            raise Rejected("The Debian package is damaged or cut off.", hint="Send it again.")
        yield head[:16].decode(errors="replace").strip().rstrip("/"), cast(IO[bytes], Window(file, at, size))
        file.seek(at + size + size % 2)
    if file.read(1):
        raise Rejected("This is no Debian package: something lies behind its end.")


class Window:
    """A readable part of a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._at, self._end = file, start, start + size

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._at
        self._file.seek(self._at)
        raw = self._file.read(left if size < 0 else min(size, left))
        self._at += len(raw)
        return raw


def _tar(name: str, part: IO[bytes], most: int) -> tarfile.TarFile:
    kind = KINDS.get(name.partition(".tar")[2])
    if kind is None:
        raise Rejected(
            f"The Debian package has a {name[:20]!a}, which is not known here.",
            hint="Pack it again: dpkg-deb -R FILE.deb tree && dpkg-deb --root-owner-group -Zxz -b tree FILE.deb",
        )
    return tarfile.open(fileobj=plain(kind, part, most), mode="r|")


def _files(archive: tarfile.TarFile, wanted: Any) -> Iterator[tuple[str, bool, bytes]]:
    """(path, whether it is a file or a link, its content if it is wanted) for each member."""
    with archive:
        for count, member in enumerate(archive):
            if count > MOST_FILES:
                raise Rejected(f"The Debian package holds more than {MOST_FILES} files.")
            path = member.name.removeprefix("./")
            raw = b""
            if member.isreg() and wanted(path):
                content = archive.extractfile(member)
                raw = content.read(LONGEST + 1) if content else b""
                if len(raw) > LONGEST:
                    raise Rejected(f"{path[:80]!a} in the Debian package is larger than {LONGEST // 1024} KiB.")
            yield path, not member.isdir(), raw
            cast(Any, archive).members = []  # or it would keep all of them


def of_bytes(raw: bytes) -> Packed | None:
    """The same for a small package in memory; None if it cannot be read."""
    try:
        return look(BytesIO(raw), 2**26)
    except (Rejected, tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError):
        return None
    except Exception as error:
        if type(error).__name__ not in FOREIGN:
            raise
        return None
