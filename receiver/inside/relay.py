"""The front's own relay, for machines without systemd-socket-proxyd (containers): it does the same, but slower."""

from __future__ import annotations

import asyncio
import contextlib
import socket

CHUNK = 65536


def relay(listener: socket.socket, address: str) -> None:
    """Pass every connection of `listener` on to host:port, or to the socket of that path, both ways with half-closes,
    until killed."""
    asyncio.run(_serve(listener, address))


async def _serve(listener: socket.socket, address: str) -> None:
    host, _, port = address.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await (
                asyncio.open_connection(host, int(port)) if host else asyncio.open_unix_connection(address)
            )
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        for side in (writer, there_writer):
            side.close()

    server = await asyncio.start_unix_server(connected, sock=listener)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
