"""Atomic and durable changes on disk, and work in directories that follows no link.

The order of every replacement is: write beside, fsync, rename, fsync the directory. A crash at any point leaves the
old file or the new one, and at worst a forgotten `.NAME.*.new` beside it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from receiver.errors import HostFault, Rejected
from receiver.system.run import run, start

MAX_DEPTH = 256  # levels of directories; each needs a descriptor
LOCK_MODE = 0o600
DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Lasts(Enum):
    """How much of a new file certainly survives a power cut."""

    WHOLE = "its name and all of its content"
    CONTENT = "all of its content, if its name is: fsync_dir() makes it so"
    LATER = "nothing; it may be empty until fsync_file() and fsync_dir()"


def write_atomically(
    path: Path, data: bytes, mode: int, *, owner: tuple[int, int] | None = None, lasts: Lasts = Lasts.WHOLE
) -> None:
    """Replace (or create) a file: a reader sees the old content or the new, and the new survives a power cut.

    `mode` is set whatever the umask is, `owner` is (uid, gid). Raises OSError; then the old file is unchanged. A caller
    that asks for less than Lasts.WHOLE has to sync the file itself before anything depends on it: each fsync takes
    time.
    """
    new = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if lasts is not Lasts.LATER:
                os.fsync(fd)
        finally:
            os.close(fd)
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    if lasts is Lasts.WHOLE:
        fsync_dir(path.parent)


def replace_symlink(path: Path, target: str | Path) -> None:
    """Point a link at `target` by one rename; durable when it returns. The link may not exist yet."""
    new = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    new.symlink_to(target)
    try:
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    fsync_dir(path.parent)


def fsync_file(path: Path) -> None:
    """Make a file's content durable; its name is its directory's."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable: fsync(2) of a file does not sync its name."""
    with opened_dir(path) as fd:
        os.fsync(fd)


def is_full(path: Path) -> bool:
    """Whether the file system has no block or no inode left for a small file."""
    found = os.statvfs(path)
    return found.f_bavail == 0 or (found.f_files > 0 and found.f_favail == 0)


def read_foreign(path: Path, *, uid: int, limit: int) -> bytes:
    """The content of a small file that the user `uid` may replace at any time.

    Raises OSError or ValueError unless it is a regular file of that user with at most `limit` bytes: follows no link,
    waits for no FIFO, reads no device.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != uid:
            raise ValueError(f"{path.name} is not a file of the app's own")
        data = os.read(fd, limit + 1)
        if len(data) > limit:
            raise ValueError(f"{path.name} is larger than {limit} bytes")
        return data
    finally:
        os.close(fd)


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, which is made if it is missing. Only its owner (and root) can open the file.

    Whoever can open a file, even just for reading, can lock it (flock(2)), and so block everybody else.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, LOCK_MODE)
    found = os.fstat(fd)
    # Older versions let the app's group read it.
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        os.fchmod(fd, LOCK_MODE)
    return fd


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[int]:
    """Hold an flock(2) on a file, which is made if it is missing; the lock ends with the block or the process.

    With wait=False, raises BlockingIOError at once if another process holds the lock.
    """
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_dir(path: Path | str, *, at: int | None = None) -> Iterator[int]:
    """A descriptor of a directory; raises OSError if the path's last component is a link."""
    fd = os.open(path, DIR_FLAGS, dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


def make_dir(at: int, name: str, mode: int, uid: int, gid: int) -> bool:
    """Make a directory in the directory `at`, or give an existing one this owner and mode; True if it was made.

    For root, in a directory of root's. Raises OSError if a file has that name.
    """
    try:
        os.mkdir(name, 0o700, dir_fd=at)
        made = True
    except FileExistsError:
        made = False
    with opened_dir(name, at=at) as fd:
        os.fchown(fd, uid, gid)
        # After the owner: chown(2) clears the set-group-id bit.
        os.fchmod(fd, mode)
    return made


def roots_dir(path: Path, mode: int) -> Path:
    """Make a directory that belongs to root alone, below one that does (Layout.roots); returns it.

    In tests it belongs to the caller.
    """
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    with opened_dir(path.parent) as parent:
        make_dir(parent, path.name, mode, os.geteuid(), os.getegid())
    return path


def remove_tree(path: Path) -> None:
    """Remove a directory and its content; nothing if it is missing. Follows no link, crosses no mount.

    With rm(1), which works at any depth: a hostile build can make trees deeper than Python's recursion limit and
    PATH_MAX.
    """
    run(["rm", "-rf", "--one-file-system", "--", path])


def remove_file(path: Path) -> bool:
    """Remove a file or link; False if there was none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def remove_below(top: Path, *names: str) -> None:
    """Remove the file that `names` lead to from `top`, if it exists; follow no link on the way.

    For root, below directories that belong to an app.
    """
    *way, last = names
    fd = os.open(top, DIR_FLAGS)
    try:
        for name in way:
            below = os.open(name, DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below
        os.unlink(last, dir_fd=fd)
    except OSError:
        # Missing, or not one of shipit's own directories: then there is no file of ours.
        pass
    finally:
        os.close(fd)


def digest_tree(path: Path, limit: int) -> str:
    """A digest of every name, type, mode, size and link target below a directory; contents are not read.

    So a lost, truncated or added file is found in milliseconds. Raises Rejected beyond `limit` entries or MAX_DEPTH,
    HostFault if the tree does not exist.
    """
    # Imported here, because OpenSSL takes 3 ms to load and every command imports this module.
    import hashlib

    digest = hashlib.sha256()
    count = 0
    todo = [(1, b"")]
    # Descriptors of the directories from the top to the current one: nothing below is reached through a link.
    way: list[int] = []
    try:
        while todo:
            depth, below = todo.pop()
            while len(way) >= depth:
                os.close(way.pop())
            if depth > MAX_DEPTH:
                raise Rejected(f"The tree is nested more than {MAX_DEPTH} deep.")
            at = way[-1] if way else None
            way.append(os.open(below.rpartition(b"/")[2] if way else path, DIR_FLAGS, dir_fd=at))
            with os.scandir(way[-1]) as entries:
                found = sorted([(os.fsencode(entry.name), entry) for entry in entries])
            count += len(found)
            if count > limit:
                raise Rejected(f"The tree has more than {limit} files.")
            for name, entry in found:
                info = entry.stat(follow_symlinks=False)
                target = os.readlink(name, dir_fd=way[-1]) if stat.S_ISLNK(info.st_mode) else b""
                size = info.st_size if stat.S_ISREG(info.st_mode) else 0
                where = below + b"/" + name if below else name
                digest.update(b"%s\0%o %d %s\0" % (where, info.st_mode, size, target))
                if stat.S_ISDIR(info.st_mode):
                    todo.append((depth + 1, where))
    except OSError as error:
        raise HostFault(f"{path} cannot be read: {error.strerror}.") from error
    finally:
        for fd in way:
            os.close(fd)
    return digest.hexdigest()


@contextmanager
def synced(path: Path) -> Iterator[None]:
    """Make everything on the file system of `path` durable (syncfs(2) by sync(1)), in parallel with the block; done
    when the block has ended. Raises HostFault if the disk failed.
    """
    child = start(["sync", "--file-system", "--", path])
    try:
        yield
    except BaseException:
        child.kill()
        child.wait()
        raise
    if child.wait():
        raise HostFault(f"{path} could not be written to the disk.", hint="shipit doctor")
