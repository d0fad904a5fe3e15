"""Writes files from elsewhere as one commit in git fast-import's format. Refuses, with one message, what git cannot
hold, what an app's tree may not have, and what exceeds the limits.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from receiver.errors import Rejected
from receiver.sources.git.receive import REF
from receiver.sources.limits import Limits

MAX_NAME, MAX_PATH, MAX_DEPTH, MAX_LINK = 255, 3800, 100, 1024
CHUNK = 2**18
# Any archive may unpack to so many bytes, however small it is.
FREE_RATIO = 64 * 2**20


class Entry(NamedTuple):
    """A file (`mode` as in git) whose content is the blob `mark`."""

    mode: str
    mark: int
    link: str = ""


@dataclass
class Found:
    """What has been found in an archive so far."""

    entries: dict[str, Entry] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    # Lower-case path → path: a case-insensitive file system could hold only one of two that differ by case.
    folded: dict[str, str] = field(default_factory=dict)
    size: int = 0
    left_out: int = 0


class Writer:
    """Writes blobs, then one commit, to `out`; enforces the limits. `packed` is the size of what was sent."""

    what = "archive"  # its name in messages

    def __init__(self, out: IO[bytes], limits: Limits, packed: int) -> None:
        self.out, self.limits = out, limits
        self.most = min(limits.size, max(FREE_RATIO, packed * limits.ratio))
        self.bomb = self.most < limits.size
        self.found = Found()
        self.count = 0

    def directory(self, name: str) -> None:
        path = self._path(name)
        if path:
            self._place(path, folder=True)

    def file(self, name: str, mode: int, size: int, content: IO[bytes]) -> None:
        """A regular file; `size` is what the archive says, and not more is read."""
        path = self._path(name)
        if not path:
            return
        if mode & (stat.S_ISUID | stat.S_ISGID):
            raise Rejected(f"{shown(name)} is set to run as another user or group.", hint="chmod a-s FILE")
        self._place(path)
        self._room(size)
        self.count += 1
        self.out.write(b"blob\nmark :%d\ndata %d\n" % (self.count, size))
        left = size
        while left:
            chunk = content.read(min(left, CHUNK))
            if not chunk:
                raise Rejected(f"The {self.what} ends inside of {shown(name)}.")
            self.out.write(chunk)
            left -= len(chunk)
        self.out.write(b"\n")
        self.found.entries[path] = Entry("100755" if mode & 0o111 else "100644", self.count)

    def symlink(self, name: str, target: str) -> None:
        path = self._path(name)
        if not path:
            return
        if not target or len(target) > MAX_LINK or not printable(target):
            raise Rejected(f"The link {shown(name)} leads to a name that no file has.")
        self._place(path)
        self._room(len(target))
        self.count += 1
        raw = target.encode(errors="surrogateescape")
        self.out.write(b"blob\nmark :%d\ndata %d\n%s\n" % (self.count, len(raw), raw))
        self.found.entries[path] = Entry("120000", self.count, target)

    def same(self, name: str, other: str) -> None:
        """A hard link to a file that came before it."""
        path, first = self._path(name), self.found.entries.get(self._path(other))
        if not path:
            return
        if first is None or first.link:
            raise Rejected(
                f"{shown(name)} is a hard link to {shown(other)}, which is no file before it in the {self.what}."
            )
        self._place(path)
        self.found.entries[path] = first

    def commit(self, title: str, when: int, parent: str | None, gone: Sequence[str] = ()) -> dict[str, Any]:
        """Write the commit; returns a report. The parent's tree is replaced as a whole; with `gone` only these paths
        are removed from it."""
        found = self.found
        if not found.entries:
            raise Rejected(f"The {self.what} holds no file.")
        top = self._top()
        for path, entry in found.entries.items():
            if entry.link and leads_out(path, entry.link, len(top)):
                raise Rejected(f"The link {shown(path)} leads out of the tree: {shown(entry.link)}.")
        message = title.encode()
        self.out.write(b"commit %s\nmark :%d\n" % (REF.encode(), self.count + 1))
        self.out.write(b"committer shipit <shipit@localhost> %d +0000\ndata %d\n%s\n" % (when, len(message), message))
        if parent:
            self.out.write(b"from %s\n" % parent.encode())
        self.out.write(b"".join(b"D %s\n" % quoted(path) for path in gone) or b"deleteall\n")
        for path, entry in found.entries.items():
            name = quoted(path[len(top) :])
            self.out.write(b"M %s :%d %s\n" % (entry.mode.encode(), entry.mark, name))
        self.out.write(b"done\n")
        self.out.flush()
        full = {parent for path in found.entries for parent in parents(path)}
        return {
            "files": len(found.entries), "size": found.size, "top": top.rstrip("/"), "left_out": found.left_out,
            "empty": len(found.folders - full),
        }  # fmt: skip

    def _top(self) -> str:
        """`name/` if everything is below one directory, as in archives of GitHub or of `tar c name`."""
        tops = {path.partition("/")[0] for path in self.found.entries}
        if len(tops) != 1 or any("/" not in path for path in self.found.entries):
            return ""
        return f"{tops.pop()}/"

    def _path(self, name: str) -> str:
        """The name as git has it; "" if it is left out. Raises Rejected for a name that a tree cannot have."""
        if not printable(name) or "\\" in name:
            raise Rejected(
                f"The {self.what} holds the name {shown(name)}, which has a control character or a backslash."
            )
        if name.startswith("/"):
            raise Rejected(
                f"The {self.what} holds the absolute path {shown(name)}.", hint="Pack it from inside: tar c ."
            )
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Rejected(f"The {self.what} holds the path {shown(name)}, which leads out of the tree.")
        if len(name) > MAX_PATH or len(parts) > MAX_DEPTH or any(len(os.fsencode(part)) > MAX_NAME for part in parts):
            raise Rejected(f"The {self.what} holds a path that is too long or too deep: {shown(name)}.")
        if ".git" in parts:
            self.found.left_out += 1
            return ""
        for part in parts:
            if is_git(part):
                raise Rejected(f"The {self.what} holds {shown(name)}, which some file system would take for git's own.")
        return "/".join(parts)

    def _place(self, path: str, *, folder: bool = False) -> None:
        """Use this path; raises Rejected if something else has it."""
        found = self.found
        for above in parents(path):
            self._name(above)
            if above in found.entries:
                raise Rejected(f"{shown(above)} is a file and a directory in the {self.what}.")
            found.folders.add(above)
        self._name(path)
        if folder:
            if path in found.entries:
                raise Rejected(f"{shown(path)} is a file and a directory in the {self.what}.")
            found.folders.add(path)
        elif path in found.entries or path in found.folders:
            raise Rejected(f"{shown(path)} is in the {self.what} twice.")
        if len(found.entries) + len(found.folders) >= self.limits.files:
            raise Rejected(
                f"The {self.what} holds more than {self.limits.files} files.",
                hint="If the app shall have them, the server's administrator raises max_files in /etc/shipit/shipit.yml.",
            )

    def _name(self, path: str) -> None:
        same = self.found.folded.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if same != path:
            raise Rejected(f"{shown(path)} and {shown(same)} differ by case only; not every file system holds both.")

    def _room(self, size: int) -> None:
        self.found.size += size
        if size < 0 or self.found.size > self.most:
            if self.bomb:
                raise Rejected(f"The {self.what} unpacks to more than {self.limits.ratio} times its size.")
            raise Rejected(f"The files of the {self.what} are larger than {self.most // 2**20} MiB together.")


def parents(path: str) -> Iterator[str]:
    """The directories above a path."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def leads_out(path: str, target: str, top: int) -> bool:
    """Whether a link at `path` leads out of the tree that begins after `top` characters of the path."""
    if target.startswith("/"):
        return True
    depth = path[top:].count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def is_git(part: str) -> bool:
    """Whether a file system that ignores case, drops invisible characters or shortens names takes it for `.git`."""
    plain = "".join(c for c in unicodedata.normalize("NFKC", part) if unicodedata.category(c) != "Cf")
    return plain.casefold().rstrip(". ") in (".git", "git~1")


def printable(name: str) -> bool:
    return not any(ord(c) < 32 or ord(c) == 127 for c in name)


def quoted(path: str) -> bytes:
    """A path with every byte quoted for fast-import (git-fast-import(1), C-style quoting)."""
    raw = path.encode(errors="surrogateescape")
    return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def shown(name: str) -> str:
    return ascii(name if len(name) <= 120 else name[:117] + "...")
