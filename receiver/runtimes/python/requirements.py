"""requirements.txt and what it includes: which files and packages decide the environment (pip's file format)."""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from receiver.manifest.problems import decode, reject, shown
from receiver.manifest.tree import MAX_READ, Tree

MAX_FILES = 64

_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?")
_OPTION = re.compile(
    r"(-r|--requirements?|-c|--constraints?|-e|--editable|-f|--find-links)(?:\s*=\s*|\s+|(?<=^-\w))(.+)"
)
_COMMENT = re.compile(r"(?:^|\s)#.*$")
# A name with an extra, a version, a marker; no option, no URL, no path.
_PLAIN = re.compile(r"[A-Za-z0-9](?:(?!\s-)[^@/\\])*")
_URL = re.compile(r"(?:[a-z+]+:)?//|(?:git|hg|svn|bzr)\+")


@dataclass
class Requirements:
    """`files`: every file that was read, and every named wheel in the tree. `names`: normalised (PEP 503); an extra is
    there as `name[extra]`. `open`: something outside these files also decides, such as a local directory or an included
    URL. `hashed`: at least one requirement has a hash, so pip would demand one for each. `lines`: every requirement as
    it was written, if each is just a name from an index (PEP 508); else empty."""

    files: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    open: bool = False
    hashed: bool = False
    lines: list[str] = field(default_factory=list)


def read(tree: Tree, path: str) -> Requirements:
    """Read a requirements file and follow its -r and -c; raises Rejected if an included file is missing."""
    found = Requirements()
    _read(tree, path, found, path)
    if not all(_PLAIN.fullmatch(line) and line not in tree.files() for line in found.lines):
        found.lines = []
    return found


def normal(name: str) -> str:
    """A package's name in the form in which PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(specs: Iterable[str]) -> set[str]:
    """The names, and `name[extra]`s, of requirement specifiers (PEP 508)."""
    names: set[str] = set()
    for spec in specs:
        match = _NAME.match(spec.strip())
        if match:
            name = normal(match[1])
            names.add(name)
            names.update(f"{name}[{normal(extra.strip())}]" for extra in (match[2] or "").split(",") if extra.strip())
    return names


def _read(tree: Tree, path: str, found: Requirements, where: str) -> None:
    if path in found.files:
        return
    if len(found.files) >= MAX_FILES:
        raise reject(where, f"More than {MAX_FILES} requirements files include each other.")
    raw = tree.read(path)
    if raw is None:
        raise reject(where, f"{shown(path)} is not in the commit (or not a regular file of at most 1 MiB).")
    found.files.append(path)
    for number, line in _logical_lines(decode(path, _utf8(raw), MAX_READ)):
        _line(tree, path, number, line, found)


def _utf8(raw: bytes) -> bytes:
    """The text as UTF-8, also from PowerShell's UTF-16 (`pip freeze > requirements.txt`), which installers read,
    too."""
    if not raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw
    return raw.decode("utf-16", errors="replace").encode(errors="replace")


def _line(tree: Tree, path: str, number: int, line: str, found: Requirements) -> None:
    where = f"{path}:{number}"
    found.hashed = found.hashed or "--hash" in line
    option = _OPTION.match(line)
    if option is None or option[1].lstrip("-")[:1] != "r":
        found.lines.append(line)
    if option is None:
        if not line.startswith("-"):
            _requirement(tree, path, line, found)
        return
    kind, value = option[1].lstrip("-")[:1], option[2].strip().strip("'\"")
    if kind == "e" or _URL.match(value):
        found.open = found.open or kind != "f"
        if kind == "e" and "://" in value:
            found.names |= names_of(re.findall(r"egg=([\w.\[\],-]+)", value))
    elif kind == "f":
        found.open = True
    else:
        _read(tree, _inside(path, value, where), found, where)


def _requirement(tree: Tree, path: str, line: str, found: Requirements) -> None:
    target = re.split(r";|\s--", line)[0].strip()
    if " @ " in target:
        found.names |= names_of([target])
        found.open = found.open or target.split(" @ ", 1)[1].strip().startswith("file:")
    elif _URL.match(target):
        return
    elif target.startswith((".", "/", "file:")) or "/" in target.split("[")[0]:
        local = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if local in tree.files():
            found.files.append(local)
        else:
            found.open = True
    else:
        found.names |= names_of([target])


def _inside(path: str, value: str, where: str) -> str:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), value))
    if target.startswith(("/", "..")):
        raise reject(where, f"{shown(value)} is outside the app's directory.")
    return target


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, with the number of the first."""
    held, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        first = first or number
        if raw.endswith("\\"):
            held += raw[:-1] + " "
            continue
        line = _COMMENT.sub("", held + raw).strip()
        if line:
            yield first, line
        held, first = "", 0
    if held.strip():
        yield first, _COMMENT.sub("", held).strip()
