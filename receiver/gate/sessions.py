"""The sessions of a key: how many of its commands may run at once, and which processes they are.

Each command takes a place: a file in the key's directory, locked for as long as its gateway lives, so a place is always
freed. The file names the command's processes, so that they can be ended when the key is removed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from receiver.caller import Caller, Role
from receiver.errors import Busy
from receiver.paths import Layout

# An admin's commands may take this many of all the places that there are (system/listener.py, MOST).
MOST = {Role.ADMIN: 128}
MOST_OTHERS = 48
GRACE = 3.0  # seconds in which a command may end by itself


@dataclass(frozen=True)
class Place:
    """The processes of one command. `sshd` is its connection's, which may serve several commands (ControlMaster)."""

    gateway: int
    asker: int
    sshd: int
    began: str
    held: bool = False


def take(layout: Layout, caller: Caller, asker: int) -> int | None:
    """Take a place until this process ends, and return its descriptor; raises Busy if all places of the key are taken.

    `asker` is the process that sshd started. Returns None if the disk takes no file: that keeps nobody out.
    """
    most = MOST.get(caller.role, MOST_OTHERS)
    sshd = parent(asker)
    mine = Place(os.getpid(), asker, sshd, began(sshd))
    try:
        directory = layout.sessions / caller.fingerprint.encode().hex()
        directory.mkdir(parents=True, exist_ok=True)
        # Use places of ended connections first: the note of an idle connection is needed to end it with its key.
        for anyones in (False, True):
            for number in range(most):
                fd = os.open(directory / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                if _free(fd) and (anyones or not _connected(_read(fd), but=sshd)):
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"{mine.gateway} {mine.asker} {mine.sshd} {mine.began}\n".encode(), 0)
                    return fd
                os.close(fd)
    except OSError:
        return None
    raise Busy(
        f"{most} commands of the key {caller.name} are running: that is all it may.",
        holds="Nothing was done.",
        hint="End one of them, or wait for it to end.",
    )


def cut_off(layout: Layout, fingerprint: str) -> int:
    """End every connection and command of a key except our own; returns how many commands were ended.

    A release that one of them has begun goes on: its worker is another process.
    """
    from receiver.system import disk

    directory = layout.sessions / fingerprint.encode().hex()
    found = list(_all(directory))
    own = {place.sshd for place in found if place.gateway == os.getpid()}
    ours = [place for place in found if place.sshd not in own]
    for place in ours:
        if _connected(place, but=0):
            _signal(place.sshd, signal.SIGTERM)
        if place.held:
            _signal(place.gateway, signal.SIGTERM)
            _signal(place.asker, signal.SIGTERM)
    wanted = {place.gateway for place in ours if place.held}
    deadline = time.monotonic() + GRACE
    while left := wanted & {place.gateway for place in _all(directory) if place.held}:
        if time.monotonic() > deadline:
            for gateway in left:
                _signal(gateway, signal.SIGKILL)
            break
        time.sleep(0.02)
    if not own:
        disk.remove_tree(directory)
    return len(wanted)


def _all(directory: Path) -> Iterator[Place]:
    with suppress(FileNotFoundError):
        for path in directory.iterdir():
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                place = _read(fd)
                if place is not None:
                    yield Place(place.gateway, place.asker, place.sshd, place.began, held=not _free(fd))
            finally:
                os.close(fd)


def _free(fd: int) -> bool:
    """Whether the place is free; if so, it is ours for as long as `fd` is open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> Place | None:
    words = os.pread(fd, 200, 0).decode(errors="replace").split()
    if len(words) != 4 or not all(word.isdecimal() for word in words):
        return None
    return Place(int(words[0]), int(words[1]), int(words[2]), words[3])


def _connected(place: Place | None, but: int) -> bool:
    """Whether the connection for which the place was taken is still up, and is not `but`."""
    if place is None or place.sshd == but or place.began == "0" or began(place.sshd) != place.began:
        return False
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{place.sshd}/comm").read_text().startswith("sshd")
    return False


def parent(pid: int) -> int:
    """The parent of a process, 0 if it is gone (proc(5), stat)."""
    return int(_stat(pid)[1] or 0)


def began(pid: int) -> str:
    """When a process began, in the kernel's ticks; "0" if there is none. Pid and start together identify a process."""
    return _stat(pid)[19] or "0"


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return [""] * 20
    return text.rpartition(")")[2].split()


def _signal(pid: int, number: int) -> None:
    # The process may have ended, or belong to another user (a test's own sshd).
    with suppress(ProcessLookupError, PermissionError):
        if pid > 1 and pid != os.getpid():
            os.kill(pid, number)
