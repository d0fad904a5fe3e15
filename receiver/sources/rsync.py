"""Files that came by rsync: into a staging tree that begins as a copy of what is live, so that only changes travel.

Links in the staging tree are made harmless (rsync's --munge-links), whatever their target: no file can be written
through one. What arrived becomes a commit. The tree is kept beside it, with the sender's file times, so that the next
transfer need not read files that have not changed.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from receiver import names
from receiver.errors import Failure, HostFault, Rejected
from receiver.model import Origin, Release
from receiver.names import Oid
from receiver.settings import Settings
from receiver.sources.base import Stored, commit_of
from receiver.sources.git.receive import Check, received
from receiver.sources.git.repository import Git
from receiver.sources.limits import Limits
from receiver.sources.tree import Writer
from receiver.system import disk
from receiver.system.landlock import confined
from receiver.system.run import Program, ended, run, start

MUNGED = "/rsyncd-munged/"  # before the target of each link (rsync(1), --munge-links)
# Directories often have the set-group-id bit, so that new files get their group; it has no use here, and is not
# allowed.
OURS = ("--munge-links", "--chmod=Dug-s")
LONGEST = 3600.0  # seconds of a transfer
SETUID = stat.S_ISUID | stat.S_ISGID


class RsyncSource(Stored):
    """The source of what `rsync ./ HOST:APP/` brought."""

    kind = "rsync"

    @contextmanager
    def staging(self, live: Release | None) -> Iterator[Staging]:
        """A tree with the files of the live release, removed after the block unless it is kept. Needs the app's
        turn."""
        top = self.paths.repo / "rsync"
        top.mkdir(mode=0o700, exist_ok=True)
        for left in top.iterdir():
            if left.name not in ("tree", "commit"):
                disk.remove_tree(left)
        staging = Staging(self, top, live.origin if live and live.origin and live.origin.commit else None)
        try:
            staging.begin()
            yield staging
        finally:
            disk.remove_tree(staging.work)


class Staging:
    """The files of one transfer. `top/tree` has the files of the commit in `top/commit`; rsync writes to `work`."""

    def __init__(self, source: RsyncSource, top: Path, live: Origin | None) -> None:
        self.source, self.live = source, live
        self._tree, self._commit, self.work = top / "tree", top / "commit", top / "work"

    def begin(self) -> None:
        """Make `work` equal to what is live."""
        if self.live is None:
            self.work.mkdir(mode=0o700)
            return
        if self._kept() == self.live.commit:
            # A copy, not hard links: rsync may change the mode of a file in place, and the kept tree must not change.
            run(["cp", "-a", "--reflink=auto", "--", self._tree, self.work])
            return
        self.work.mkdir(mode=0o700)
        with self.source.open(self.live) as stream, os.fdopen(os.dup(stream.fileno()), "rb") as file:
            unpack(file, self.work)

    def _kept(self) -> Oid | None:
        try:
            return names.oid(self._commit.read_text().strip())
        except (FileNotFoundError, Rejected):
            return None

    def keep(self, origin: Origin) -> None:
        """Keep the transferred tree: the next transfer begins with it, if its release is live then."""
        disk.remove_file(self._commit)
        disk.remove_tree(self._tree)
        self.work.rename(self._tree)
        disk.write_atomically(self._commit, f"{commit_of(origin)}\n".encode(), 0o600)

    def transfer(self, options: tuple[str, ...], settings: Settings, room: int, turn: int) -> int:
        """Run the server's end of rsync, on our standard input and output, to its end; returns its exit code.

        Raises Rejected, and ends rsync, if more arrives than the server takes.
        """
        words = ["prlimit", f"--fsize={settings.max_push * 2**20}", "rsync", "--server", *options, *OURS, ".", "."]
        child = confined(self.work, lambda: start(words, cwd=self.work, stdin=0, stdout=1, pass_fds=(turn,)))
        watch = Watch(child, self.work, Limits(0, room, settings.max_files))
        watch.start()
        try:
            with ended(child, signal.SIGTERM):
                code = child.wait()
        finally:
            watch.over.set()
            watch.join()
        if watch.failure:
            raise watch.failure
        return code if code >= 0 else 128 - code

    def take(self, settings: Settings, room: int, by: str, check: Check) -> tuple[Origin | None, list[str]]:
        """The origin of what arrived, and lines for the sender; None if it equals what is live.

        Raises Rejected, with nothing kept, if the files cannot be an app's tree.
        """
        limits = Limits(0, room, settings.max_files)
        title = f"rsync from {by}"
        parent = self.live.commit if self.live else None
        report: dict[str, Any] = {}
        oid = received(
            self.source.paths.repo, lambda git: report.update(imported(git, self.work, limits, title, parent)),
            lambda commits, oid: None if self._same(commits.git, oid) else check(commits, oid),
        )  # fmt: skip
        if self._same(self.source.commits.git, oid):
            return None, []
        lines = [f"{report['files']} files, {report['size'] / 2**20:.1f} MiB"]
        if report["left_out"]:
            lines.append(f"{report['left_out']} entries below .git were left out. Spare the way: --exclude .git")
        if report["empty"]:
            lines.append(f"{report['empty']} empty directories were left out: git holds files only.")
        return Origin(self.source.kind, oid, title=title, author=by), lines

    def _same(self, git: Git, oid: Oid) -> bool:
        if self.live is None:
            return False
        said = git.run("rev-parse", f"{oid}^{{tree}}", f"{commit_of(self.live)}^{{tree}}").out.split()
        return len(set(said)) == 1


class Watch(threading.Thread):
    """Measures during the transfer how much has arrived; ends rsync beyond the limits, or if it takes too long."""

    def __init__(self, child: Program, work: Path, limits: Limits) -> None:
        super().__init__(daemon=True)
        self.child, self.work, self.limits = child, work, limits
        self.over = threading.Event()
        self.failure: Failure | None = None

    def run(self) -> None:
        ends = time.monotonic() + LONGEST
        pause = 1.0
        while not self.over.wait(pause):
            began = time.monotonic()
            try:
                measure(self.work, self.limits)
                if began > ends:
                    raise Rejected(f"The transfer took longer than {LONGEST / 60:.0f} minutes.")
            except Failure as failure:
                self.failure = failure
                self.child.terminate()
                return
            # Measuring takes at most a tenth of the time.
            pause = max(1.0, 10 * (time.monotonic() - began))


def measure(top: Path, limits: Limits) -> None:
    """Raise Rejected if there are more files, or more bytes, than the limits allow."""
    files = size = 0
    for folder, _, below in os.walk(top):
        files += 1 + len(below)
        for name in below:
            try:
                size += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118 - many
            except FileNotFoundError:
                continue
        if files > 2 * limits.files:
            raise Rejected(
                f"These are more than {limits.files} files.",
                holds="Nothing was changed.",
                hint="If the app shall have them, the server's administrator raises max_files in /etc/shipit/shipit.yml.",
            )
        if size > limits.size:
            raise Rejected(
                "The disk of the server has no room for this.", holds="Nothing was changed.", hint="shipit doctor"
            )


def unpack(stream: IO[bytes], top: Path) -> None:
    """Unpack a commit's files (git archive), with links as rsync's --munge-links writes them."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = top / member.name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                path.symlink_to(MUNGED + member.linkname)
            elif member.isreg() and (content := archive.extractfile(member)):
                with path.open("xb") as file:
                    shutil.copyfileobj(content, file)
                path.chmod(member.mode & 0o777)
                os.utime(path, (member.mtime, member.mtime))
            cast(Any, archive).members = []
        while stream.read(2**16):
            pass


class TreeWriter(Writer):
    """For a directory: all of it is the tree, even if it has only one folder."""

    what = "directory"

    def _top(self) -> str:
        return ""


def imported(git: Git, top: Path, limits: Limits, title: str, parent: Oid | None) -> dict[str, Any]:
    """Have git's fast-import read our tree; returns the writer's report."""
    child = git.fast_import()
    assert child.stdin is not None and child.stderr is not None
    with ended(child):
        try:
            writer = TreeWriter(child.stdin, limits, limits.size)
            walk(str(top), "", writer)
            report = writer.commit(title, int(time.time()), parent)
            child.stdin.close()
        except BrokenPipeError:
            report = {}
        said = child.stderr.read(2**16).decode(errors="replace")
        if child.wait():
            raise HostFault("git refuses the files that arrived.", details=said.splitlines()[-5:])
        return report


def walk(folder: str, prefix: str, writer: TreeWriter) -> None:
    """Write everything below a directory, sorted by name. No other process writes there any more."""
    mode = os.lstat(folder).st_mode
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(folder, stat.S_IMODE(mode) | stat.S_IRWXU)  # noqa: PTH101
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            writer.directory(name)
            walk(entry.path, f"{name}/", writer)
        elif stat.S_ISLNK(mode):
            writer.symlink(name, os.readlink(entry.path).removeprefix(MUNGED))  # noqa: PTH115
        elif not stat.S_ISREG(mode):
            raise Rejected(f"{name!a} is a device, a pipe or a socket; an app has none.", holds="Nothing was changed.")
        elif mode & SETUID:
            raise Rejected(
                f"{name!a} is set to run as another user or group.",
                holds="Nothing was changed.",
                hint=f"chmod a-s {name}; or leave modes out: rsync -rlz --delete ./ HOST:APP/",
            )
        else:
            if not mode & stat.S_IRUSR:
                os.chmod(entry.path, stat.S_IMODE(mode) | stat.S_IRUSR)  # noqa: PTH101
            fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                writer.file(name, mode, os.fstat(fd).st_size, file)
