"""One check of one process: does it answer, and does it belong to the right user?

HTTP is spoken by hand because `import http.client` takes 19 ms of every deploy.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from receiver.model import Listen
from receiver.system import disk

MAX_PORT = 8  # bytes of NAME.port
MAX_HEAD = 64 * 2**10
MAX_BODY = 2**20
# If no content is looked for, the body is read for this long (s), so that the app is not cut off while it writes.
POLITE = 0.25
# While an answer is awaited, `meanwhile` is called this often (s): it raises what ends the wait.
SLICE = 0.25
CLOSED = "closed without an answer"
LISTENING = "0A"
_PORT = re.compile(rb"[1-9][0-9]{0,4}\n?")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r?\n)")


@dataclass(frozen=True)
class Place:
    """Where a process listens: `run_dir`/NAME.sock, which must be `uid`'s own, and NAME.port for `Listen.PORT`.

    Answers are "" if all is well, else what was wrong, as the user will read it.
    """

    run_dir: Path
    name: str
    listen: Listen
    uid: int

    def http(
        self,
        host: str,
        path: str,
        status: int,
        content: str,
        seconds: float,
        answered: Callable[[int], None] = lambda _: None,
        scheme: str = "http",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> str:
        """GET `path` as the proxy does for a visitor whose scheme is `scheme`. The answer must have `status` (0: any
        below 500) and contain `content`. `answered` is called with the answer's status."""
        deadline = time.monotonic() + seconds
        if wrong := self._foreign_socket():
            return wrong
        try:
            with socket.socket(socket.AF_UNIX) as pipe:
                pipe.settimeout(seconds)
                pipe.connect(str(self._socket))
                if wrong := self._foreign_listener(pipe):
                    return wrong
                found, wrong = _ask(pipe, host, scheme, path, status, content, _Reader(pipe, deadline, meanwhile))
                answered(found)
                return wrong or self._foreign_port()
        except OSError as error:
            return _told(error)

    def accepts(self, seconds: float) -> str:
        """Connect to the socket or port on which the process itself listens."""
        try:
            if self.listen is Listen.PORT:
                with _connected(self._port(), seconds):
                    return self._foreign_port()
            if wrong := self._foreign_socket():
                return wrong
            with socket.socket(socket.AF_UNIX) as pipe:
                pipe.settimeout(seconds)
                pipe.connect(str(self._socket))
                return self._foreign_listener(pipe)
        except (OSError, ValueError) as error:
            return _told(error)

    def failed(self, answer: str) -> bool:
        """Whether `answer` is one of the app itself, of which something is wrong, and not of its start or its front."""
        return (answer == CLOSED or answer.isdecimal()) and not self._foreign_port()

    def elsewhere(self, before: Collection[int]) -> str:
        """Where the process listens instead of where it should; "" if that is not known. `before`: the ports on which
        programs of its user listened before it started."""
        ports = sorted(ports_of(self.uid) - {*before})
        try:
            wanted = self._port() if self.listen is Listen.PORT else 0
        except (OSError, ValueError):
            return ""
        if not ports or wanted in ports or (self.listen is Listen.SOCKET and not self._foreign_socket()):
            return ""
        instead = f"$PORT, which is {wanted} here" if wanted else "$SOCKET"
        return f"{self.name} listens on port {', '.join(map(str, ports))}; requests come to {instead}"

    def open_to_all(self) -> int:
        """The port of a process that also takes connections from other machines, around the proxy; 0 if it does not."""
        try:
            wanted = self._port() if self.listen is Listen.PORT else 0
        except (OSError, ValueError):
            return 0
        return next((port for port, _, everywhere in listening() if everywhere and port == wanted), 0)

    @property
    def _socket(self) -> Path:
        return self.run_dir / f"{self.name}.sock"

    def _port(self) -> int:
        """The port that the launcher gave the process; raises OSError or ValueError while there is none."""
        path = self.run_dir / f"{self.name}.port"
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and found.st_uid == self.uid:
            text = os.fsencode(path.readlink())
        else:
            # A file, as older versions wrote it.
            text = disk.read_foreign(path, uid=self.uid, limit=MAX_PORT)
        if not _PORT.fullmatch(text):
            raise ValueError(f"{self.name}.port holds no port")
        return int(text)

    def _foreign_listener(self, pipe: socket.socket) -> str:
        """Check whose process listens at the other end (unix(7), SO_PEERCRED): the path may have changed meanwhile."""
        _, uid, _ = _CREDENTIALS.unpack(pipe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return "" if uid == self.uid else f"{self._socket.name} is not a socket of the app's own"

    def _foreign_socket(self) -> str:
        """Check who owns the socket: an app could put a link to another app's socket in its place."""
        try:
            found = os.lstat(self._socket)
        except OSError as error:
            return _told(error)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != self.uid:
            return f"{self._socket.name} is not a socket of the app's own"
        return ""

    def _foreign_port(self) -> str:
        """Check who owns the port: another user may have taken it before the app; only /proc/net/tcp shows whose it
        is."""
        if self.listen is not Listen.PORT:
            return ""
        try:
            port = self._port()
        except (OSError, ValueError) as error:
            return _told(error)
        owners = listeners(port)
        if not owners:
            return f"nothing listens on port {port}"
        return "" if owners == {self.uid} else f"port {port} belongs to another user"


def _connected(port: int, seconds: float) -> socket.socket:
    """A connection to the listener on this port of the machine, by IPv4 or IPv6."""
    try:
        return socket.create_connection(("127.0.0.1", port), seconds)
    except ConnectionRefusedError:
        return socket.create_connection(("::1", port), seconds)


def listeners(port: int, net: Path = Path("/proc/net")) -> set[int]:
    """The uids of those who listen on TCP `port`, on any address."""
    return {uid for found, uid, _ in listening(net) if found == port}


def ports_of(uid: int, net: Path = Path("/proc/net")) -> set[int]:
    """The TCP ports on which programs of this user listen."""
    return {port for port, found, _ in listening(net) if found == uid}


def listening(net: Path = Path("/proc/net")) -> list[tuple[int, int, bool]]:
    """Every TCP port on which a program listens, that program's uid, and whether it listens on all addresses
    (proc(5))."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            with (net / table).open() as lines:
                next(lines)
                for fields in map(str.split, lines):
                    # The kernel lists all listeners first; thousands of connections may follow.
                    if fields[3] != LISTENING:
                        break
                    address, _, port = fields[1].rpartition(":")
                    found.append((int(port, 16), int(fields[7]), not address.strip("0")))
        except FileNotFoundError:
            continue
    return found


class _Reader:
    """Reads what comes from a socket, until `deadline`."""

    def __init__(self, pipe: socket.socket, deadline: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.pipe, self.deadline, self._meanwhile = pipe, deadline, meanwhile

    def head(self) -> tuple[bytes, bytes]:
        got = b""
        while b"\r\n\r\n" not in got and len(got) < MAX_HEAD:
            chunk = self._some()
            if not chunk:
                break
            got += chunk
        head, _, body = got.partition(b"\r\n\r\n")
        return head + b"\r\n" if head else b"", body

    def body(self, body: bytes) -> bytes:
        try:
            while len(body) < MAX_BODY and (chunk := self._some()):
                body += chunk
        except OSError:
            # Slow or cut off: judge what has come.
            pass
        return body[:MAX_BODY]

    def _some(self) -> bytes:
        while (left := self.deadline - time.monotonic()) > 0:
            self.pipe.settimeout(min(left, SLICE))
            try:
                return self.pipe.recv(65536)
            except TimeoutError:
                self._meanwhile()
        raise TimeoutError


def _ask(
    pipe: socket.socket, host: str, scheme: str, path: str, status: int, content: str, reader: _Reader
) -> tuple[int, str]:
    # HTTP/1.0, so that the body does not come in chunks.
    pipe.sendall(
        f"GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: shipit-healthcheck\r\nAccept: */*\r\n"
        f"X-Forwarded-Proto: {scheme}\r\nConnection: close\r\n\r\n".encode()
    )
    head, body = reader.head()
    match = _STATUS.match(head)
    if not match:
        return 0, "not HTTP" if head else CLOSED
    found = int(match[1])
    wrong = found != status if status else found >= 500
    if not content or wrong:
        reader.deadline = min(reader.deadline, time.monotonic() + POLITE)
    body = reader.body(body)
    if wrong:
        return found, str(found)
    return found, "" if content.encode() in body else f"{found} without the wanted content"


def _told(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "none in time"
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return "nothing listens yet"
    if isinstance(error, ConnectionError):
        return CLOSED
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
