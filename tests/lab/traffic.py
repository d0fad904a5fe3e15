"""Everything that clients do to an app, at once, and what came of each request. A program of its own: it disturbs no
clock of who measures, and no test disturbs it.

`python traffic.py '{"ip": …}'` (Wish as JSON) asks until standard input ends, then prints {kind: Count} as JSON. A
request is *lost* when no whole, right answer comes. It is asked *again* only where every browser does: it was sent on a
kept connection which the server closed without a byte of answer (RFC 9112, 9.3.1), or the server said that it had not
looked at it (HTTP/2 GOAWAY, RFC 9113, 6.8; a websocket's close frame). A POST is never asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

# What connection number 0, 1, 2 … does: kept: GET after GET; close: a connection a request; slow: answers that take
# `slow` seconds; upload: POSTs of `megabytes`; trickle: a body that takes `slow` seconds to send.
MIX = ("kept", "close", "kept", "slow", "upload", "kept", "trickle", "websocket")
STREAMS = 4  # requests at once on an HTTP/2 connection

# The app that all of this is asked of (tests/proxy/apps/asgi.py), with what uvicorn needs for websockets.
REQUIREMENTS = "uvicorn==0.34.0\nwebsockets==14.1\n"
APP = Path(__file__).resolve().parent.parent / "proxy/apps/asgi.py"


@dataclass(frozen=True)
class Wish:
    """Where to ask and what. `h2_port`: where HTTP/2 is spoken without TLS, 0 for nowhere; one connection more."""

    ip: str
    host: str
    port: int = 80
    h2_port: int = 0
    connections: int = 8
    mix: tuple[str, ...] = MIX
    slow: float = 2.0
    megabytes: float = 2.0
    pause: float = 0.02
    patience: float = 60.0


@dataclass
class Count:
    """`cut`: of those asked again, how many found a websocket that had ended without a close frame (a server that does
    not wait for the client's own: what the client sends just then resets the connection). `slowest` in seconds;
    `reasons` of what was lost."""

    sent: int = 0
    again: int = 0
    cut: int = 0
    lost: int = 0
    slowest: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)


Counts = dict[str, Count]


class Traffic:
    """The program as a context; `counts` is there when the block has ended without an error."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.counts: Counts = {}

    def __enter__(self) -> Traffic:
        words = [sys.executable, __file__, json.dumps(asdict(self.wish))]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            out, _ = self._process.communicate(timeout=2 * self.wish.patience + 30)
        finally:
            self._process.kill()
        if error is None:
            self.counts = {name: Count(**one) for name, one in json.loads(out).items()}

    @property
    def lost(self) -> dict[str, dict[str, int]]:
        """Kind → reasons, of the kinds that lost anything."""
        return {kind: count.reasons for kind, count in self.counts.items() if count.lost}

    @property
    def again(self) -> int:
        return sum(count.again for count in self.counts.values())


class Again(Exception):
    """The server did not look at the request, and whoever sent it may know."""


class Cut(Again):
    """As Again, of a websocket that ended without a word."""


Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Http1:
    """One connection, or (`keep` False) one after the other."""

    def __init__(self, wish: Wish, keep: bool) -> None:
        self._wish, self._keep = wish, keep
        self._pipe: Pipe | None = None

    async def ask(self, path: str, body: bytes | None = None, over: float = 0.0) -> str:
        """The body of the answer; raises Again, or anything else for a request that is lost."""
        reused = self._pipe is not None
        self._seen = False
        try:
            return await self._ask(path, body, over)
        except (OSError, EOFError) as error:
            self.close()
            if reused and not self._seen and body is None:
                raise Again from error
            raise
        except BaseException:
            self.close()
            raise

    async def _ask(self, path: str, body: bytes | None, over: float) -> str:
        if self._pipe is None:
            self._pipe = await asyncio.open_connection(self._wish.ip, self._wish.port)
        reader, writer = self._pipe
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {self._wish.host}\r\n"
        if not self._keep:
            head += "Connection: close\r\n"
        if body is not None:
            head += f"Content-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n")
        parts = 10 if over else 1
        size = -(-len(body or b"") // parts) or 1
        for start in range(0, len(body or b""), size):
            writer.write((body or b"")[start : start + size])
            await writer.drain()
            await asyncio.sleep(over / parts)
        first = await reader.readexactly(1)
        self._seen = True
        said = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        answer = await reader.readexactly(int(said.lower().partition("content-length:")[2].split("\r\n")[0]))
        if not self._keep or "connection: close" in said.lower():
            self.close()
        if (status := said.split(" ", 2)[1]) != "200":
            raise ValueError(status)
        return answer.decode()

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe[1].close()
            self._pipe = None


class WebSocket:
    """One connection on which every message is echoed, `vN:message`."""

    def __init__(self, wish: Wish) -> None:
        from websockets.asyncio.client import ClientConnection

        self._wish = wish
        self._connection: ClientConnection | None = None
        self._numbers = itertools.count()

    async def ask(self) -> str:
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        if self._connection is None:
            self._connection = await connect(
                f"ws://{self._wish.host}/", host=self._wish.ip, port=self._wish.port, open_timeout=self._wish.patience
            )
        message = str(next(self._numbers))
        try:
            await self._connection.send(message)
            answer = str(await self._connection.recv())
        except ConnectionClosed as closed:
            self._connection = None
            if closed.rcvd is not None:
                raise Again from closed
            raise Cut from closed
        if not answer.endswith(f":{message}"):
            raise ValueError(f"{message} was answered {answer}")
        return answer

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class Http2:
    """One connection with prior knowledge (RFC 9113, 3.3) for several requests at once; a new one after a GOAWAY.

    By frames: the library `h2` takes a connection for closed at a GOAWAY, but answers still come after it.
    """

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._opening = asyncio.Lock()
        self._link: Link | None = None

    async def ask(self, path: str) -> str:
        async with self._opening:
            if self._link is None or self._link.closing:
                self._link = Link(*await asyncio.open_connection(self._wish.ip, self._wish.h2_port))
        return await self._link.ask(path, self._wish.host)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()


class Link:
    """A connection that speaks HTTP/2, from its first byte to its last. `closing`: it takes no request any more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from hpack import Decoder, Encoder
        from hyperframe.frame import SettingsFrame

        self._reader, self._writer = reader, writer
        self._encoder, self._decoder = Encoder(), Decoder()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._status: dict[int, str] = {}
        self._found: dict[int, bytes] = {}
        self._streams = itertools.count(1, 2)
        self.closing = False
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
        self._reading = asyncio.create_task(self._read())

    async def ask(self, path: str, host: str) -> str:
        from hyperframe.frame import HeadersFrame

        stream = next(self._streams)
        answer = self._waiting[stream] = asyncio.get_running_loop().create_future()
        head = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]
        frame = HeadersFrame(stream, self._encoder.encode(head), flags=["END_HEADERS", "END_STREAM"])
        self._writer.write(frame.serialize())
        return await answer

    async def _read(self) -> None:
        from hyperframe.frame import Frame

        ended: Exception = ConnectionError("closed without an answer")
        try:
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(9)))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                self._take(frame)
        except EOFError:
            pass
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            ended = error
        self.closing = True
        for answer in self._waiting.values():
            answer.set_exception(ended)
        self._writer.close()

    def _take(self, frame: object) -> None:
        from hyperframe import frame as frames

        if isinstance(frame, frames.SettingsFrame) and "ACK" not in frame.flags:
            self._writer.write(frames.SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, frames.PingFrame) and "ACK" not in frame.flags:
            self._writer.write(frames.PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())
        elif isinstance(frame, frames.HeadersFrame):
            # Small answers to small questions: nginx sends the head in one frame.
            assert "END_HEADERS" in frame.flags
            self._status[frame.stream_id] = dict(self._decoder.decode(frame.data))[":status"]
        elif isinstance(frame, frames.DataFrame):
            self._found[frame.stream_id] = self._found.get(frame.stream_id, b"") + frame.data
            self._writer.write(frames.WindowUpdateFrame(0, len(frame.data) or 1).serialize())
        elif isinstance(frame, frames.RstStreamFrame):
            self._waiting.pop(frame.stream_id).set_exception(ConnectionError("the stream was reset"))
        elif isinstance(frame, frames.GoAwayFrame):
            self.closing = True
            for stream in [stream for stream in self._waiting if stream > frame.last_stream_id]:
                self._waiting.pop(stream).set_exception(Again())
        if isinstance(frame, (frames.HeadersFrame, frames.DataFrame)) and "END_STREAM" in frame.flags:
            answer, status = self._waiting.pop(frame.stream_id), self._status.pop(frame.stream_id)
            text = self._found.pop(frame.stream_id, b"").decode()
            if status == "200":
                answer.set_result(text)
            else:
                answer.set_exception(ValueError(status))

    async def close(self) -> None:
        self._writer.close()
        await asyncio.gather(self._reading, return_exceptions=True)


class Clients:
    """All of them, and their counts."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._over = asyncio.Event()
        self.counts: Counts = {}

    async def run(self) -> None:
        """Ask until standard input ends."""
        asking = [
            asyncio.create_task(self._connection(kind))
            for kind, _ in zip(itertools.cycle(self._wish.mix), range(self._wish.connections))
        ]
        if self._wish.h2_port:
            asking.append(asyncio.create_task(self._http2()))
        print("asking", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        self._over.set()
        await asyncio.gather(*asking)

    async def _connection(self, kind: str) -> None:
        if kind == "websocket":
            socket = WebSocket(self._wish)
            await self._go_on(kind, socket.ask)
            await socket.close()
            return
        client = Http1(self._wish, keep=kind != "close")
        body = b"x" * int(self._wish.megabytes * 2**20)
        slow = self._wish.slow

        async def upload(over: float = 0.0) -> None:
            size = await client.ask("/size", body, over)
            if size != str(len(body)):
                raise ValueError(f"{size} of {len(body)} bytes arrived")

        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "slow": lambda: client.ask(f"/slow/{slow:g}"),
            "upload": upload,
            "trickle": lambda: upload(slow),
        }
        await self._go_on(kind, ways.get(kind, lambda: client.ask("/")))
        client.close()

    async def _http2(self) -> None:
        client = Http2(self._wish)
        await asyncio.gather(*(self._go_on("http/2", lambda: client.ask("/")) for _ in range(STREAMS)))
        await client.close()

    async def _go_on(self, kind: str, ask: Callable[[], Awaitable[object]]) -> None:
        count = self.counts.setdefault(kind, Count())
        reasons = Counter[str]()
        while not self._over.is_set():
            count.sent += 1
            began = time.monotonic()
            while True:
                try:
                    await asyncio.wait_for(ask(), self._wish.patience)
                except Again as unseen:
                    count.again += 1
                    count.cut += isinstance(unseen, Cut)
                    continue
                except Exception as error:  # noqa: BLE001 - whatever it was, this request is lost
                    count.lost += 1
                    reasons[str(error) or type(error).__name__] += 1
                break
            count.slowest = max(count.slowest, time.monotonic() - began)
            await asyncio.sleep(self._wish.pause)
        for reason, number in reasons.items():
            count.reasons[reason] = count.reasons.get(reason, 0) + number


def main() -> None:
    asked = json.loads(sys.argv[1])
    clients = Clients(Wish(**{**asked, "mix": tuple(asked["mix"])}))
    asyncio.run(clients.run())
    print(json.dumps({kind: asdict(count) for kind, count in clients.counts.items()}))


if __name__ == "__main__":
    main()
