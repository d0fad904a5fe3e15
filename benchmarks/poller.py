"""When did the new code answer first? Asked from outside, every 5 ms, each time over a new connection."""

from __future__ import annotations

import socket
import threading
import time

EVERY = 0.005
ANSWER_WITHIN = 2.0


def ask(ip: str, name: str, timeout: float = ANSWER_WITHIN) -> bytes:
    """One GET / of the site `name`; the whole answer with its head. Raises OSError."""
    with socket.create_connection((ip, 80), timeout) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


class Missing(RuntimeError):
    """The right answer did not come in time."""


class Poller:
    """Polls from its start until an answer is a 200 that holds `marker`."""

    def __init__(self, ip: str, name: str, marker: str) -> None:
        self._ip, self._name, self._marker = ip, name, marker.encode()
        self._seen: float | None = None
        self._last = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Poller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, timeout: float = 30) -> float:
        """The moment (s, monotonic clock) of the first right answer; waits for it if need be. Raises Missing."""
        self._thread.join(timeout)
        if self._seen is None:
            raise Missing(f"{self._name} did not answer {self._marker!r} within {timeout:g} s; last: {self._last!r}")
        return self._seen

    def _poll(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                self._last = ask(self._ip, self._name)
            except OSError as error:
                self._last = str(error).encode()
            now = time.monotonic()
            if self._last.startswith(b"HTTP/1.1 200 ") and self._marker in self._last:
                self._seen = now
                return
            due = max(due + EVERY, now)
            time.sleep(due - now)
