"""Sends requests one after another until it is stopped. Counts the answers, and the requests without an answer."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType

TIMEOUT = 10.0  # seconds that an answer may take
PAUSE = 0.005  # seconds between two requests of one client: they load the same machine that answers them


def get(host: str, port: int, timeout: float = TIMEOUT) -> tuple[int, str]:
    """One request to this machine's proxy for the name `host`, on a connection of its own. Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/", headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(65536).decode(errors="replace").strip()
    finally:
        connection.close()


class Load:
    """`clients` threads that ask the proxy for `host` as long as the `with` block lasts.

    `total` counts requests, `lost` those without an answer or with a status other than 200, `answers` the texts.
    """

    def __init__(self, host: str, port: int, clients: int = 4) -> None:
        self._host, self._port = host, port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        self.total = 0
        self.lost: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                status, text = get(self._host, self._port)
                wrong = "" if status == 200 else f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                wrong, text = f"{type(error).__name__}: {error}", ""
            with self._lock:
                self.total += 1
                if wrong:
                    self.lost[wrong] += 1
                else:
                    self.answers[text] += 1
            time.sleep(PAUSE)
