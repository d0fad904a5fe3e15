"""A constant load on one address: every answer is counted, every failure kept with its time."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    """A request that got no answer, or one that is an error. `reused`: on a connection that had served before."""

    at: float
    what: str
    reused: bool


@dataclass(frozen=True)
class Report:
    """Times are seconds since the load began."""

    total: int
    by_status: Counter[int]
    by_body: Counter[str]
    failures: list[Failure]
    slowest: float
    seconds: float
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return len(self.failures)

    def __str__(self) -> str:
        lines = [
            f"{self.total} requests in {self.seconds:.1f} s, {self.failed} failed, slowest {self.slowest:.3f} s",
            *(
                f"  {count} × {body!r}, {self.first[body]:.3f}–{self.last[body]:.3f} s"
                for body, count in self.by_body.most_common(10)
            ),
            *(f"  at {one.at:.3f} s{' (reused)' if one.reused else ''}: {one.what}" for one in self.failures[:20]),
        ]
        return "\n".join(lines)


class Load:
    """Threads that ask again and again until `stop`; it starts at once, and ends with a `with` block too.

    Half of the threads keep their connection, half open one for each request; `keep_alive` makes them all alike.
    `pause` is how long each waits between two requests. With `tls` it is HTTPS. A failure is no answer at all, or a status of 400 and up;
    nothing is tried again.
    """

    def __init__(
        self,
        ip: str,
        *,
        host: str,
        path: str = "/",
        port: int = 80,
        threads: int = 8,
        keep_alive: bool | None = None,
        pause: float = 0.005,
        timeout: float = 10,
        method: str = "GET",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        self.ip, self.port, self.path, self.method = ip, port, path, method
        self.headers = {"Host": host}
        self.pause = pause
        self.timeout = timeout
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._statuses: Counter[int] = Counter()
        self._bodies: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._slowest = 0.0
        self._total = 0
        self._began = time.monotonic()
        self._ended: float | None = None
        self._threads = [
            threading.Thread(
                target=self._ask, args=(number % 2 == 0 if keep_alive is None else keep_alive,), daemon=True
            )
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def total(self) -> int:
        return self._total

    def wait_for_body(self, text: str, timeout: float = 30) -> float:
        """Until some answer holds this text; when it did first, in seconds since the load began."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self._lock:
                for body, at in self._first.items():
                    if text in body:
                        return at
            time.sleep(0.002)
        raise AssertionError(f"no answer held {text!r} in {timeout:g} s; seen: {sorted(self._first)}")

    def stop(self) -> Report:
        """End the load and hand over what it has seen; more than once is the same."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self.timeout + 5)
        if self._ended is None:
            self._ended = time.monotonic()
        return Report(
            self._total,
            self._statuses,
            self._bodies,
            self._failures,
            self._slowest,
            self._ended - self._began,
            self._first,
            self._last,
        )

    def _ask(self, keep_alive: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        headers = self.headers if keep_alive else {**self.headers, "Connection": "close"}
        while not self._stop.is_set():
            reused = connection is not None
            began = time.monotonic()
            try:
                connection = connection or self._connection()
                connection.request(self.method, self.path, headers=headers)
                answer = connection.getresponse()
                status, body = answer.status, answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                self._note(began, None, f"{type(error).__name__}: {error}", reused)
                if connection is not None:
                    connection.close()
                connection = None
            else:
                self._note(began, status, body, reused)
                if not keep_alive or answer.will_close:
                    connection.close()
                    connection = None
            self._stop.wait(self.pause)
        if connection is not None:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.ip, self.port, timeout=self.timeout)
        if self.tls is not None:
            # By its name, which http.client would look up.
            plain = socket.create_connection((self.ip, self.port), self.timeout)
            connection.sock = self.tls.wrap_socket(plain, server_hostname=self.headers["Host"])
        return connection

    def _note(self, began: float, status: int | None, text: str, reused: bool) -> None:
        now = time.monotonic()
        at = now - self._began
        with self._lock:
            self._total += 1
            self._slowest = max(self._slowest, now - began)
            if status is not None:
                self._statuses[status] += 1
                self._bodies[text] += 1
                self._first.setdefault(text, at)
                self._last[text] = at
            if status is None or status >= 400:
                what = text if status is None else f"{status}: {text[:100]}"
                self._failures.append(Failure(at, what, reused))
