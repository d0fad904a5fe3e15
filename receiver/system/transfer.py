"""HTTP with other machines, which may be slow: one time limit (ends.py) covers DNS, connection, answer and content."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import SplitResult

from receiver.system.ends import Ends


def addresses(host: str, port: int, ends: Ends) -> list[tuple[str, int]]:
    """The addresses of a host in DNS. Raises OSError, and ValueError for an invalid name."""
    answer: SimpleQueue[list[Any] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            answer.put(error)

    # A daemon thread: a resolver may go on trying for long, and nobody waits for it.
    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answer.get(timeout=ends.wait())
    except Empty:
        raise TimeoutError(f"DNS says nothing of {host[:100]}") from None
    if isinstance(found, Exception):
        raise found
    return [(str(info[4][0]), port) for info in found]


def answered(
    parts: SplitResult, ends: Ends, headers: Mapping[str, str], *, method: str = "GET", body: bytes | None = None,
    address: tuple[str, int] | None = None,
) -> tuple[HTTPConnection, HTTPResponse]:  # fmt: skip
    """The answer to one request; `ends` limits all of it, with the content. Follows no redirect.

    If `address` is given, it is used, and the name is not resolved. Raises OSError, HTTPException and ValueError; so
    does reading the answer.
    """
    connection = _Connection(parts, ends, address)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with ends.told():
            connection.request(method, path, body, {"User-Agent": "shipit", "Connection": "close", **headers})
            return connection, connection.getresponse()
    except (OSError, HTTPException, ValueError):
        connection.close()
        raise


class _Connection(HTTPConnection):
    def __init__(self, parts: SplitResult, ends: Ends, address: tuple[str, int] | None) -> None:
        self._secure, self._ends, self._address = parts.scheme == "https", ends, address
        self.default_port = 443 if self._secure else 80
        super().__init__(parts.hostname or "", parts.port or self.default_port)

    def connect(self) -> None:
        trouble: OSError | None = None
        for address in [self._address] if self._address else addresses(self.host, self.port, self._ends):
            try:
                self.sock = socket.create_connection(address, self._ends.wait())
                break
            except OSError as error:
                trouble = error
        else:
            raise trouble or OSError(f"{self.host[:100]} has no address")
        self.sock.settimeout(self._ends.wait())
        if self._secure:
            import ssl

            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
            self.sock.settimeout(self._ends.wait())

    def response_class(self, sock: socket.socket, *args: Any, **options: Any) -> HTTPResponse:  # type: ignore[override]
        response = HTTPResponse(sock, *args, **options)
        response.fp = bounded(response.fp, sock, self._ends)
        return response


def bounded(file: io.BufferedReader, sock: socket.socket, ends: Ends) -> io.BufferedReader:
    """The file of a socket; each read must end within the time that is left."""
    return io.BufferedReader(_Bounded(file, sock, ends))


class _Bounded(io.RawIOBase):
    def __init__(self, file: io.BufferedReader, sock: socket.socket, ends: Ends) -> None:
        self._raw, self._sock, self._ends = file.detach(), sock, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._ends.wait())
        with self._ends.told():
            return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
