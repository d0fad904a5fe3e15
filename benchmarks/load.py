"""Eight clients that ask all the time, and what was lost of that. A program of its own, so that it disturbs no clock.

`python -m benchmarks.load IP NAME keep|close`: runs until standard input ends, then prints one line of JSON.
Every request that is not answered by a complete 200 within 5 s is lost; nothing is asked twice.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from types import TracebackType

CLIENTS = 8
PAUSE = 0.02  # seconds between an answer and the same client's next question: about 300 requests a second in all
PATIENCE = 5.0


@dataclass
class Tally:
    """What came of the requests. `gap`: the longest time (s) without any right answer."""

    requests: int = 0
    lost: int = 0
    gap: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)


class Load:
    """The program as a context; `tally` is there when the block has ended."""

    def __init__(self, ip: str, name: str, keep: bool) -> None:
        self._words = [sys.executable, "-m", "benchmarks.load", ip, name, "keep" if keep else "close"]
        self.tally = Tally()

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        out, _ = self._process.communicate(timeout=30)
        if error is None:
            self.tally = Tally(**json.loads(out))


class Client:
    """One of them, with its connection."""

    def __init__(self, ip: str, name: str, keep: bool) -> None:
        self._ip, self._keep = ip, keep
        close = "" if keep else "Connection: close\r\n"
        self._question = f"GET / HTTP/1.1\r\nHost: {name}\r\n{close}\r\n".encode()
        self._pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> None:
        """One request. Raises OSError, EOFError, TimeoutError or ValueError if it is lost."""
        try:
            last = await asyncio.wait_for(self._ask(), PATIENCE)
        except BaseException:
            self._hang_up()
            raise
        if last:
            self._hang_up()

    async def _ask(self) -> bool:
        if self._pipe is None:
            self._pipe = await asyncio.open_connection(self._ip, 80)
        reader, writer = self._pipe
        writer.write(self._question)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
        status = head.split(" ", 2)[1]
        if status != "200":
            raise ValueError(status)
        return not self._keep or "connection: close" in head

    def _hang_up(self) -> None:
        if self._pipe is not None:
            self._pipe[1].close()
            self._pipe = None


async def ask_until_told(clients: list[Client]) -> Tally:
    """All of them ask until standard input ends."""
    tally = Tally()
    over = asyncio.Event()
    answered = time.monotonic()

    async def go_on(client: Client) -> None:
        nonlocal answered
        while not over.is_set():
            tally.requests += 1
            try:
                await client.ask()
            except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
                reason = str(error) or type(error).__name__
                tally.lost += 1
                tally.reasons[reason] = tally.reasons.get(reason, 0) + 1
            else:
                now = time.monotonic()
                tally.gap, answered = max(tally.gap, now - answered), now
            await asyncio.sleep(PAUSE)

    asking = [asyncio.create_task(go_on(client)) for client in clients]
    print("asking", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    over.set()
    await asyncio.gather(*asking)
    return tally


def main() -> None:
    _, ip, name, mode = sys.argv
    clients = [Client(ip, name, mode == "keep") for _ in range(CLIENTS)]
    print(json.dumps(asdict(asyncio.run(ask_until_told(clients)))))


if __name__ == "__main__":
    main()
