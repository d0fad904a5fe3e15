"""Reads a wheel's metadata (PEP 427, PEP 376): its name, its requirements, and its programs."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import IO

from receiver.errors import Rejected
from receiver.manifest import Tree
from receiver.runtimes import packed
from receiver.runtimes.base import Suggestion
from receiver.runtimes.packed import LONGEST, Packed
from receiver.runtimes.python import requirements

_DIST = re.compile(r"([^/]+)\.dist-info/WHEEL")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}\.whl", re.ASCII)
_SCRIPT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})\s*=\s*\S.*", re.ASCII)
# A program's name that is also valid for a process type; `release` would mean the release command.
_TYPE = re.compile(r"(?!(?:web|release)$)(?=.{1,40}$)[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*", re.ASCII)
# Errors of zipfile and its decompressors; RuntimeError: the archive is encrypted.
DAMAGED = (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError)
_NEEDS = re.compile(r"^Requires-Dist: ([^\n;]+)", re.MULTILINE)


def look(file: IO[bytes]) -> Packed | None:
    """The metadata of a zip archive that is a wheel; None if it is none. Raises Rejected for a wheel that no installer
    accepts, and zipfile's errors for a damaged one."""
    with zipfile.ZipFile(file) as archive:
        tops = [match[1] for match in map(_DIST.fullmatch, archive.namelist()) if match]
        if len(tops) != 1 or f"{tops[0]}.dist-info/RECORD" not in archive.namelist():
            return None
        folder = f"{tops[0]}.dist-info"

        def text(name: str) -> bytes:
            if f"{folder}/{name}" not in archive.namelist():
                return b""
            with archive.open(f"{folder}/{name}") as member:
                raw = member.read(LONGEST + 1)
            if len(raw) > LONGEST:
                raise Rejected(f"The wheel's {name} is larger than {LONGEST // 1024} KiB.")
            return raw

        told = text("WHEEL").decode(errors="replace")
        texts = {name: raw for name in ("METADATA", "entry_points.txt") if (raw := text(name))}
    tags = [tag.split("-") for tag in re.findall(r"^Tag: *(\S+)\s*$", told, re.MULTILINE)]
    build = re.findall(r"^Build: *(\S+)\s*$", told, re.MULTILINE)
    if not tags or any(len(tag) != 3 for tag in tags):
        raise Rejected("The wheel does not say which Python it is for.")
    parts = [".".join(dict.fromkeys(tag[i] for tag in tags)) for i in range(3)]
    name = "-".join([tops[0], *build[:1], *parts]) + ".whl"
    if not _FILE.fullmatch(name) or tops[0].count("-") != 1:
        raise Rejected(f"{name[:80]!a} cannot be a wheel's name.")
    return Packed(project(name), name, texts)


def project(file: str) -> str:
    """The name of the project, from the wheel's file name."""
    return requirements.normal(file.partition("-")[0])


def needs(tree: Tree, file: str) -> set[str]:
    """The normalised names of a wheel's requirements without extras."""
    return requirements.names_of(_NEEDS.findall(_texts(tree, file).get("METADATA", b"").decode(errors="replace")))


def asks(tree: Tree, file: str) -> list[str]:
    """The name of a wheel's project, and its lines of requirements; [] if these are not known."""
    said = _texts(tree, file).get("METADATA", b"").decode(errors="replace").replace("\r", "")
    lines = said.partition("\n\n")[0].split("\n")
    return [f"wheel {project(file)}", *sorted({line for line in lines if line.startswith("Requires-")})] if said else []


def suggestion(tree: Tree, file: str) -> Suggestion | None:
    """A wheel's program as `web`, and its other programs as processes to be scaled. If there are several and none has
    the project's name, raises Rejected, which lists them."""
    found = scripts(_texts(tree, file).get("entry_points.txt", b""))
    own = [name for name in found if requirements.normal(name) == project(file)] or found
    if len(own) == 1:
        told = f"No Procfile: {file} brings the program {own[0]}, so `web: {own[0]}`."
        others = tuple((name, name) for name in found if name != own[0] and _TYPE.fullmatch(name))
        return Suggestion(told, web=own[0], others=others)
    if own:
        raise Rejected(
            f"There is no Procfile, and {file} brings several programs: {', '.join(own[:8])}.",
            hint=f"Send a tree with the wheel and a Procfile beside it that says which:\nweb: {own[0]}",
        )
    return None


def scripts(raw: bytes) -> list[str]:
    """The names below [console_scripts] of an entry_points.txt."""
    section, found = "", []
    for line in raw.decode(errors="replace").splitlines():
        if line.strip().startswith("["):
            section = line.strip()
        elif section == "[console_scripts]" and (match := _SCRIPT.fullmatch(line.strip())):
            found.append(match[1])
    return found


def _texts(tree: Tree, file: str) -> Mapping[str, bytes]:
    """The texts stored beside the wheel; if there are none and it is small, those read from the wheel."""
    if found := packed.beside(tree, file):
        return found
    raw = tree.read(file)
    try:
        said = look(BytesIO(raw)) if raw else None
    except DAMAGED:
        said = None
    return said.beside if said else {}
