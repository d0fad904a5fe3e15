"""The description of an artifact: name, version, the commit its files come from, and the digest of each file.

Every byte of it follows from the files and the commit: no clock, user, umask or machine name influences it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from receiver.client.deploy import base_of
from receiver.client.directory import Directory
from receiver.client.files import Selection
from receiver.errors import HostFault, Rejected
from receiver.runtimes.python import packed
from receiver.sources import tarball
from receiver.sources.about import ABOUT, SUMS, About, named, versioned
from receiver.sources.tarball import NO_DATE
from receiver.system.run import run

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,59}", re.ASCII)
VERSION = re.compile(r"[0-9][A-Za-z0-9.+~]{0,63}", re.ASCII)


class Item(NamedTuple):
    """A file in the artifact: `mode` is 0644, 0755 or 0777 (a link to `target`)."""

    path: str
    mode: int
    target: str = ""


@dataclass(frozen=True)
class Artifact:
    """The files of a selection, and their description. `when` (epoch) is the date of every file."""

    selection: Selection
    items: tuple[Item, ...]
    about: About
    maintainer: str
    when: int

    @property
    def stem(self) -> str:
        return f"{self.about.name}-{self.about.version}"

    def own(self) -> Iterator[tuple[str, bytes]]:
        """The two files that every archive has beside the project's: its description, and sha256sum(1)'s list."""
        yield from tarball.own(self.about, len(self.items), self.digests())

    def digests(self) -> Iterator[tuple[str, str]]:
        """SHA-256 of each regular file."""
        for item in self.items:
            if not item.target:
                with (self.selection.root / item.path).open("rb") as file:
                    yield item.path, tarball.digest(file)


def artifact_of(selection: Selection, name: str, version: str) -> Artifact:
    """Read the files and the checkout; `name` and `version` are the caller's wishes ("": find them). Raises
    Rejected."""
    base = base_of(selection)
    root = selection.root
    said = _git(root, "show", "-s", "--format=%ct%n%an <%ae>", "HEAD").splitlines() if base.commit else []
    date, maintainer = (said[0], said[1]) if len(said) == 2 else (str(NO_DATE), "")
    date = os.environ.get("SOURCE_DATE_EPOCH", date)
    if not date.isascii() or not date.isdigit():
        raise Rejected("SOURCE_DATE_EPOCH is not a number of seconds.")
    when = max(int(date), NO_DATE)
    about = About(_name(root, name), _version(root, version, base.dirty), base.commit, base.dirty, when)
    return Artifact(selection, tuple(_items(selection)), about, maintainer, when)


def _items(selection: Selection) -> Iterator[Item]:
    for path in selection.paths:
        if path in (ABOUT, SUMS):
            continue
        mode = (selection.root / path).lstat().st_mode
        if "\n" in path or "\\" in path or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise Rejected(
                f"{path!a} cannot be packed: it is no file with a usual name.", hint="artifact: exclude: […]"
            )
        if stat.S_ISLNK(mode):
            yield Item(path, 0o777, os.readlink(selection.root / path))  # noqa: PTH115 - as it is written
        else:
            # git's modes: who else may read a file depends on the umask, not on the project.
            yield Item(path, 0o755 if mode & 0o100 else 0o644)


def _name(root: Path, wished: str) -> str:
    found = wished or named(packed.said(Directory(root)).name) or root.resolve().name.lower()
    if not NAME.fullmatch(found):
        raise Rejected(
            f"{found[:60]!a} cannot be an artifact's name.",
            hint="Say one of lower-case letters, digits and dashes: shipit pack --name blog",
        )
    return found


def _version(root: Path, wished: str, dirty: bool) -> str:
    """From `git describe`: v1.2 gives 1.2, three commits later 1.2+3.gab12cd3; uncommitted changes add `.dirty`."""
    if not wished:
        tagged = _git(root, "describe", "--tags", "--long", "--match", "v[0-9]*", "--match", "[0-9]*", "HEAD")
        wished = versioned(tagged, _git(root, "rev-parse", "HEAD"), dirty=dirty)
    if not VERSION.fullmatch(wished):
        raise Rejected(
            f"{wished[:64]!a} cannot be a version.",
            hint="It begins with a digit; letters, digits, `.`, `+` and `~` follow: shipit pack --version 1.2.0",
        )
    return wished


def _git(root: Path, *words: str) -> str:
    """What git says of the checkout; "" without a checkout or git."""
    try:
        return run(["git", *words], cwd=root, env=os.environ, check=False).out.strip()
    except HostFault:
        return ""
