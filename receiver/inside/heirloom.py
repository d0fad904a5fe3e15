"""The disk that outlives the releases of a virtual machine: two machines must never have it at once.

Each release's launcher asks for it. Who has it listens on a socket of the app's own user, and gives it to whoever asks
and has a higher number: its machine is shut down, and then the disk is the other's. It keeps the connection, by which it
learns that the other has ended, as a release does that did not become healthy; then it asks for the disk again. A lock
(flock(2)) on the disk is what says whose it is; it goes with the process that holds it, however that ends.
Only the standard library.
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
    """Who is to have the disk next. `path`: where it takes requests."""

    def __init__(self, pipe: socket.socket, path: str) -> None:
        self._pipe, self.path = pipe, path

    def has_it(self) -> None:
        try:  # noqa: SIM105
            self._pipe.sendall(GO)
        except OSError:
            pass  # it has ended: `wait` will see

    def wait(self, woken: int, asked: Callable[[], bool]) -> bool:
        """Until it ends (True), or we are asked to end (False)."""
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
    """The disk in the directory `data`, of so many MiB, as release `number` asks for it, which takes requests from `path`.
    `meeting`: where those who ask find each other."""

    def __init__(self, data: str, meeting: str, number: int, path: str, size: int) -> None:
        self.file = f"{data}/disk.raw"
        self._place, self._number, self._path, self._size = f"{meeting}/disk", number, path, size
        self._lock = -1
        self._listener: socket.socket | None = None
        # Connections that tell their other ends, when they close, that we have ended.
        self._open: list[socket.socket] = []

    def fileno(self) -> int:
        assert self._listener is not None
        return self._listener.fileno()

    def take(self, woken: int, asked: Callable[[], bool]) -> bool:
        """Wait until the disk is ours; False if we are asked to end before. It is made at its first use, and grows."""
        while not asked():
            if self._locked():
                self._listen()
                return True
            self._ask(woken, asked)
        return False

    def asked(self) -> Heir | None:
        """Someone wants it: None when it is not to have it."""
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
            # Said, because a child of ours may have the descriptor still.
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
        """Ask who has it; returns when it is worth trying again."""
        pipe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            pipe.connect(self._place)
            pipe.sendall(f"{self._number} {self._path}\n".encode())
        except OSError:
            pipe.close()
            # Nobody has it any more, or not yet: whoever holds the lock is about to listen, or to end.
            time.sleep(RETRY)
            return
        # Until it is ours (GO), or who has it has ended.
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
