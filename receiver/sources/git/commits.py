"""The commits of a repository: their author and message, their files, and a tree as a tar stream."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple

from receiver.errors import HostFault, Rejected
from receiver.manifest.tree import lead
from receiver.names import Branch, Oid
from receiver.sources.git.repository import Git
from receiver.system.run import PIPE, start

# Larger files are never read into memory (those of the manifest are small).
MAX_READ = 2**20
# Linux cannot unpack a longer path (PATH_MAX is 4096); mode, id and size come before it.
MAX_RECORD = 4096
# How many bytes of a commit's author or subject are read; 200 characters are shown.
_SHOWN = 1024
_LINK = "160000"
RAISE = "If it shall have them, the server's administrator raises {} in /etc/shipit/shipit.yml."
_FILES = ("100644", "100755")
_SYMLINK = "120000"
MAX_LINKS = 1000  # how many links are followed


class Entry(NamedTuple):
    """A file, link or submodule (mode 160000) of a commit; `size` in bytes."""

    mode: str
    oid: str
    size: int


@dataclass(frozen=True)
class Commit:
    """A commit's own data, as text without control characters. `body`: its message after the subject, unchanged, the
    first 4 KiB. `when`: the committer's date (epoch)."""

    oid: Oid
    author: str
    subject: str
    body: str = ""
    when: int = 0


class Commits:
    """The commits of an app's repository. `extra` is a hook's quarantine (git.quarantine)."""

    def __init__(self, repo: Path, extra: Mapping[str, str] | None = None) -> None:
        self.git = Git(repo, extra)
        self._objects: Objects | None = None
        self._trees: dict[Oid, CommitTree] = {}

    def create(self) -> None:
        """Make the repository; repeatable."""
        self.git.create()

    def branch(self, branch: Branch) -> Oid | None:
        """The commit of a branch."""
        return self.git.branch(branch)

    def put_back(self, branch: Branch, commit: Oid | None) -> bool:
        """Set a branch to `commit` (None: remove it); returns whether that was a change."""
        return self.git.put_back(branch, commit)

    def unpin(self, number: int) -> None:
        """Stop keeping the commit of a release that was pruned."""
        self.git.unpin(number)

    def objects(self) -> Objects:
        if self._objects is None:
            self._objects = Objects(self.git)
        return self._objects

    def commit(self, oid: Oid) -> Commit:
        """Author and subject of a commit; raises HostFault when there is no such commit."""
        kind, raw = self.objects().read(oid)
        if kind != "commit":
            raise HostFault(f"{oid} is a {kind}, not a commit.")
        return commit_of(oid, raw)

    def tree(self, oid: Oid, *, max_files: int = 10**7, max_size: int = 2**62) -> CommitTree:
        """The files of a commit. Reading them raises Rejected beyond `max_files` entries or `max_size` bytes.

        They are listed only once, so the limits of the first call hold.
        """
        if oid not in self._trees:
            self._trees[oid] = CommitTree(self, oid, max_files, max_size)
        return self._trees[oid]

    def history(self, until: Oid, since: Oid | None, limit: int = 50) -> list[Commit]:
        """The commits from `since` (not included) to `until`, newest first, along first parents; at most `limit`.

        Uses GitPython, in this process (its import takes 75 ms: too long for a push).
        """
        from git import Repo

        found: list[Commit] = []
        with Repo(self.git.repo) as repo:
            repo.git.update_environment(**self.git.env)
            commit = repo.commit(until)
            while commit.hexsha != since and len(found) < limit:
                subject = _clean(str(commit.summary))
                found.append(Commit(Oid(commit.hexsha), _clean(str(commit.author)), subject))
                if not commit.parents:
                    break
                commit = commit.parents[0]
        return found

    def close(self) -> None:
        if self._objects is not None:
            self._objects.close()
            self._objects = None

    def __enter__(self) -> Commits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class CommitTree:
    """The files of one commit (receiver.manifest's Tree); listed once, at first use."""

    def __init__(self, commits: Commits, oid: Oid, max_files: int, max_size: int) -> None:
        self.commits = commits
        self._oid = oid
        self._max_files = max_files
        self._max_size = max_size
        self._entries: dict[str, Entry] | None = None
        self._files: dict[str, str] | None = None
        self._links: dict[str, str] | None = None

    def entries(self) -> Mapping[str, Entry]:
        """Every file, link and submodule by its path. Stops at the limits, so a tree bomb does no harm."""
        if self._entries is None:
            self._entries = self._list()
        return self._entries

    def files(self) -> Mapping[str, str]:
        """Path → blob id of the regular files, and of links to one."""
        if self._files is None:
            entries = self.entries()
            self._files = {path: entry.oid for path, entry in entries.items() if entry.mode in _FILES}
            for path, to in self.links().items():
                if to in entries and entries[to].mode in _FILES:
                    self._files[path] = entries[to].oid
        return self._files

    def links(self) -> Mapping[str, str]:
        """Path of each link → where it leads to in the commit, "" = nowhere; if there are many, those nearest to the
        top."""
        if self._links is None:
            entries = self.entries()
            found = [path for path, entry in entries.items() if entry.mode == _SYMLINK and entry.size < MAX_RECORD]
            near = sorted(found, key=lambda path: path.count("/"))[:MAX_LINKS]
            written = {
                path: self.commits.objects().read(entries[path].oid)[1].decode(errors="replace") for path in near
            }
            ways = {path: lead(path, written.get) for path in near}
            there = (
                {*entries, *(above.as_posix() for path in entries for above in PurePosixPath(path).parents)}
                if ways
                else set()
            )
            self._links = {path: to if to in there else "" for path, to in ways.items()}
        return self._links

    def read(self, path: str) -> bytes | None:
        """The content of a regular file, or of the file that a link leads to, up to MAX_READ bytes; else None."""
        path = self.links().get(path, path)
        entry = self.entries().get(path)
        if entry is None or entry.mode not in _FILES or entry.size > MAX_READ:
            return None
        return self.commits.objects().read(entry.oid)[1]

    def submodules(self) -> dict[str, Oid]:
        """Path → commit of each submodule."""
        return {path: Oid(entry.oid) for path, entry in self.entries().items() if entry.mode == _LINK}

    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries().values())

    def _list(self) -> dict[str, Entry]:
        git = self.commits.git
        child = start(git.argv("ls-tree", "-r", "-l", "-z", "--full-tree", self._oid), env=git.env, stdout=PIPE,
                      stderr=PIPE)  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        found: dict[str, Entry] = {}
        size = 0
        try:
            rest = b""
            while chunk := child.stdout.read(65536):
                *records, rest = (rest + chunk).split(b"\0")
                for record in records:
                    path, entry = _entry(record)
                    found[path] = entry
                    size += entry.size
                if len(found) > self._max_files:
                    raise Rejected(f"The commit has more than {self._max_files} files.", hint=RAISE.format("max_files"))
                if size > self._max_size:
                    raise Rejected(f"The files of the commit are larger than {self._max_size // 2**20} MiB together.")
                if max(len(rest), *map(len, records), 0) > MAX_RECORD:
                    raise Rejected("The commit has a path that is too long for Linux.")
            said = child.stderr.read(65536).decode(errors="replace")
        finally:
            child.kill()
            child.stdout.close()
            child.stderr.close()
            code = child.wait()
        if rest or code:
            raise HostFault(f"git cannot list the files of {self._oid[:8]}.", details=said.splitlines()[-5:])
        return found


def _entry(record: bytes) -> tuple[str, Entry]:
    head, _, path = record.partition(b"\t")
    mode, _, oid, size = head.split()
    if size == b"BAD":
        raise HostFault(
            f"The repository has lost the object {oid.decode()}.", hint="git fsck in the repository tells more"
        )
    return path.decode(errors="surrogateescape"), Entry(mode.decode(), oid.decode(), 0 if size == b"-" else int(size))


class Objects:
    """Reads objects through one `git cat-file --batch` for as long as it is open."""

    def __init__(self, git: Git) -> None:
        self._child = start(git.argv("cat-file", "--batch"), env=git.env, stdin=PIPE, stdout=PIPE)

    def read(self, oid: str) -> tuple[str, bytes]:
        """(type, content); raises HostFault if the repository has no such object, Rejected if it is larger than
        MAX_READ."""
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(oid.encode() + b"\n")
            child.stdin.flush()
            head = child.stdout.readline().split()
            if len(head) != 3:
                raise HostFault(f"The repository has no object {oid}.")
            kind, size = head[1].decode(), int(head[2])
            if size > MAX_READ:
                # git is still sending the rest of the answer.
                child.kill()
                raise Rejected(f"The {kind} {oid[:8]} is larger than {MAX_READ // 2**20} MiB.")
            raw = child.stdout.read(size + 1)[:-1]
        except BrokenPipeError as error:
            raise HostFault("git ended while it was asked for an object.") from error
        return kind, raw

    def close(self) -> None:
        child = self._child
        if child.stdin is not None and child.stdout is not None:
            child.stdin.close()
            child.stdout.close()
        child.wait()


class Archive:
    """A running `git archive`; the descriptor is its output."""

    def __init__(self, git: Git, tree: Oid) -> None:
        self._child = start(git.argv("archive", "--format=tar", tree), env=git.env, stdout=PIPE, stderr=PIPE)

    def fileno(self) -> int:
        """The read end of the pipe; another process may get it, and then reads all of it."""
        assert self._child.stdout is not None
        return self._child.stdout.fileno()

    def finish(self) -> None:
        """Wait for git's end; raises HostFault if it failed. A reader that stopped early is no failure."""
        said = self._end()
        if self._child.returncode not in (0, -signal.SIGPIPE):
            raise HostFault("git could not send the whole commit to the build.", details=said.splitlines()[-5:])

    def abandon(self) -> None:
        self._child.kill()
        self._end()

    def _end(self) -> str:
        child = self._child
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        said = child.stderr.read(65536).decode(errors="replace")
        child.stderr.close()
        child.wait()
        return said


def commit_of(oid: Oid, raw: bytes) -> Commit:
    """The data in the bytes of a commit object."""
    head, _, message = raw.partition(b"\n\n")
    fields = dict(line.split(b" ", 1) for line in head.split(b"\n") if b" " in line and line[:1] != b" ")
    encoding = fields.get(b"encoding", b"utf-8").decode("ascii", "replace")
    author = fields.get(b"author", b"").rpartition(b"> ")[0] + b">"
    subject, _, body = message.lstrip(b"\n").partition(b"\n")
    date = fields.get(b"committer", b"").rpartition(b"> ")[2].partition(b" ")[0]
    when = int(date) if date.isdigit() and len(date) < 12 else 0
    return Commit(oid, _text(author, encoding), _text(subject, encoding), body[:4096].decode(errors="replace"), when)


def _text(raw: bytes, encoding: str) -> str:
    """The beginning of a line; `encoding` comes from the author, and some of Python's codecs do not support
    `replace`."""
    raw = raw[:_SHOWN]
    try:
        return _clean(raw.decode(encoding, "replace"))
    except (LookupError, ValueError):
        return _clean(raw.decode(errors="replace"))


def _clean(text: str) -> str:
    """One printable line of at most 200 characters: a commit's text is untrusted."""
    return "".join(c if c.isprintable() else " " for c in text)[:200].strip()
