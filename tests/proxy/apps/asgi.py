"""The same as an ASGI app, which also tells a body's size at /size, and an echo over websockets."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

RELEASE = os.environ["SHIPIT_RELEASE"].encode()
NOTES = os.open(os.environ.get("NOTES", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
Receive, Send = Callable[[], Awaitable[dict[str, Any]]], Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await http(scope, receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)


async def http(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    answer = RELEASE
    if scope["path"].startswith("/slow/"):
        await asyncio.sleep(float(scope["path"][6:]))
    if scope["method"] == "POST":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/size":
            answer = str(len(body)).encode()
        else:
            os.write(NOTES, body + b"\n")
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": RELEASE.decode() + ":" + message["text"]})
