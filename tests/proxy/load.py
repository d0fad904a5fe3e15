"""Clients of the proxy that count every request that was not answered as it should be."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Load:
    """Closed-loop clients on 127.0.0.1:`port`. `keep`: one connection a client, or one a request."""

    port: int
    host: str
    clients: int = 8
    keep: bool = True
    method: str = "GET"
    path: str = "/"
    pause: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    seen: list[tuple[float, str]] = field(default_factory=list)
    slowest: float = 0.0

    def __enter__(self) -> Load:
        self._stop = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()

    @property
    def requests(self) -> int:
        return sum(self.answers.values()) + sum(self.failures.values())

    async def _all(self) -> None:
        self._ids = itertools.count()
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    async def _client(self) -> None:
        pipe = None
        while not self._stop:
            began = time.monotonic()
            try:
                if pipe is None:
                    pipe = await asyncio.open_connection("127.0.0.1", self.port)
                answer = await self._request(*pipe)
                self.answers[answer] += 1
                self.seen.append((began, answer))
                if not self.keep or self._closing:
                    pipe[1].close()
                    pipe = None
            except (OSError, ValueError, EOFError) as error:
                self.failures[str(error) or type(error).__name__] += 1
                if pipe:
                    pipe[1].close()
                pipe = None
            self.slowest = max(self.slowest, time.monotonic() - began)
            if self.pause:
                await asyncio.sleep(self.pause)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: {self.host}\r\n"
        body = ""
        if self.method == "POST":
            body = f"id-{next(self._ids)}"
            self.sent.add(body)
            head += f"Content-Length: {len(body)}\r\n"
        if not self.keep:
            head += "Connection: close\r\n"
        writer.write(f"{head}\r\n{body}".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = answer.split(" ", 2)[1]
        length = int(answer.lower().split("content-length: ", 1)[1].split("\r\n")[0])
        text = (await reader.readexactly(length)).decode()
        if status != "200":
            raise ValueError(status)
        # nginx ends a connection after 1000 requests, and says so.
        self._closing = "connection: close" in answer.lower()
        return text
