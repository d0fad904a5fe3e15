"""The data disk of a virtual machine, which outlives its releases: two machines must never have it at once.

Each release's launcher asks for it. The launcher that has the disk listens on a socket of the app's user. If a launcher
with a higher release number asks, the first one shuts its machine down and hands the disk over. It keeps the
connection: when the new launcher ends (a release that did not become healthy does), the connection closes, and it asks
for the disk again. A lock (flock(2)) on the disk says who has it; the lock ends with the process that holds it.
Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
from collections.abc import Callable

GO, NO = b"go\n", b"no\n"
RETRY = 0.2
MIB = 2**20


class Heir:
    """The launcher that is to have the disk next. `path`: the socket where it takes requests."""

    def __init__(self, pipe: socket.socket, path: str) -> None:
        self._pipe, self.path = pipe, path

    def has_it(self) -> None:
        try:  # noqa: SIM105
            self._pipe.sendall(GO)
        except OSError:
            pass  # it has ended; `wait` notices that

    def wait(self, woken: int, asked: Callable[[], bool]) -> bool:
        """Wait until the heir ends (True), or until we are told to end (False)."""
        while not asked():
            found, _, _ = select.select([self._pipe.fileno(), woken], [], [])
            if woken in found:
                os.read(woken, 4096)
            if self._pipe.fileno() in found:
                try:
                    more = self._pipe.recv(64)
                except OSError:
                    more = b""
                if not more:
                    self._pipe.close()
                    return True
        return False


class Heirloom:
    """The disk in the directory `data`, of `size` MiB, for release `number`, which takes requests from `path`.
    `meeting`: the directory where launchers find each other's sockets."""

    def __init__(self, data: str, meeting: str, number: int, path: str, size: int) -> None:
        self.file = f"{data}/disk.raw"
        self._place, self._number, self._path, self._size = f"{meeting}/disk", number, path, size
        self._lock = -1
        self._listener: socket.socket | None = None
        # Connections that show the other ends, by closing, that we have ended.
        self._open: list[socket.socket] = []

    def fileno(self) -> int:
        assert self._listener is not None
        return self._listener.fileno()

    def take(self, woken: int, asked: Callable[[], bool]) -> bool:
        """Wait until the disk is ours; False if we are told to end before. Made at its first use; it grows as
        needed."""
        while not asked():
            if self._locked():
                self._listen()
                return True
            self._ask(woken, asked)
        return False

    def asked(self) -> Heir | None:
        """Answer a launcher that asks for the disk: the heir, or None if it must not have it."""
        assert self._listener is not None
        try:
            pipe, _ = self._listener.accept()
            pipe.settimeout(1)
            number, _, path = pipe.recv(4096).decode().strip().partition(" ")
            if int(number) > self._number:
                self._listener.close()
                pipe.settimeout(None)
                return Heir(pipe, path)
            pipe.sendall(NO)
            self._open.append(pipe)
        except (OSError, ValueError):
            pass
        return None

    def give(self, heir: Heir) -> None:
        self.close()
        heir.has_it()

    def close(self) -> None:
        if self._lock >= 0:
            # Explicitly, because a child of ours may still have the descriptor.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1
        for pipe in [*self._open, *([self._listener] if self._listener else [])]:
            pipe.close()
        self._open = []

    def _locked(self) -> bool:
        if self._lock >= 0:
            return True
        lock = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        if os.fstat(lock).st_size < self._size * MIB:
            os.ftruncate(lock, self._size * MIB)
        self._lock = lock
        return True

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            new = f"{self._place}.{self._number}"
            try:  # noqa: SIM105
                os.unlink(new)  # noqa: PTH108
            except FileNotFoundError:
                pass
            self._listener.bind(new)
        finally:
            os.umask(before)
        self._listener.listen(16)
        self._listener.setblocking(False)
        os.rename(new, self._place)  # noqa: PTH104

    def _ask(self, woken: int, asked: Callable[[], bool]) -> None:
        """Ask the launcher that has the disk; returns when another try makes sense."""
        pipe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            pipe.connect(self._place)
            pipe.sendall(f"{self._number} {self._path}\n".encode())
        except OSError:
            pipe.close()
            # Nobody listens: the holder of the lock is about to listen, or to end.
            time.sleep(RETRY)
            return
        # Until the disk is ours (GO), or its holder has ended.
        heard = NO
        while heard == NO and not asked():
            found, _, _ = select.select([pipe.fileno(), woken], [], [])
            if woken in found:
                os.read(woken, 4096)
            if pipe.fileno() in found:
                try:
                    heard = pipe.recv(64)
                except OSError:
                    heard = b""
        if heard == GO:
            self._open.append(pipe)
        else:
            pipe.close()
