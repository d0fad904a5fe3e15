"""Webhooks, which nginx passes on from the apps' names. The first one starts this; it ends when none comes for a while.

It runs as `shipit`, in a sandbox (templates/systemd/shipit-hook.service); each request has a process of its own.
"""

from __future__ import annotations

import gc
import socket
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from typing import cast

from receiver.cli.pull import by_itself
from receiver.names import AppName
from receiver.paths import Layout
from receiver.sources.pull.hook import MAX_BODY, app_of, is_signed, secret_of
from receiver.sources.pull.wish import Place
from receiver.system.ends import Ends
from receiver.system.journal import lines_may_be_lost
from receiver.system.listener import FIRST_FD, IDLE, fork_for_each
from receiver.system.transfer import bounded

LONGEST = 30.0  # seconds that one request may take; nginx passes it on as a whole


def main() -> None:
    """Serve the socket that systemd passed."""
    lines_may_be_lost("shipit-hook")
    gc.freeze()
    gc.enable()
    with socket.socket(fileno=FIRST_FD) as server:
        fork_for_each(server, serve, ahead=iter(()), idle=IDLE)


def serve(connection: socket.socket, layout: Layout = Layout()) -> int:  # noqa: B008
    """In a forked process: answer one request, then fetch the repository if it was a valid hook; returns an exit
    code."""
    connection.settimeout(LONGEST)
    asked = Request(connection, layout)
    connection.close()
    return by_itself(layout, asked.app, "webhook", waits=True) if asked.app else 0


class Request(BaseHTTPRequestHandler):
    """Making one reads and answers the request. `app` is the app whose hook it was, "" if it was none."""

    server_version, sys_version = "shipit", ""

    def __init__(self, connection: socket.socket, layout: Layout) -> None:
        self.app, self._layout = AppName(""), layout
        super().__init__(connection, "nginx", None)  # type: ignore[arg-type]

    def setup(self) -> None:
        super().setup()
        self.rfile = bounded(cast(BufferedReader, self.rfile), self.connection, Ends(LONGEST, LONGEST))

    def do_POST(self) -> None:
        found = app_of(self.path)
        secret = secret_of(Place(self._layout.app(found[0])).hook) if found else None
        if found is None or secret is None or self.path != secret.address(found[0]):
            return self._say(404, "There is no such hook.")
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or len(size) > 9 or int(size) > MAX_BODY:
            return self._say(413, "The body is too large, or does not say how large it is.")
        body = self.rfile.read(int(size))
        if not is_signed(secret, {name.lower(): value for name, value in self.headers.items()}, body):
            return self._say(403, "The signature is not made with this hook's secret.")
        self.app = found[0]
        return self._say(202, "shipit looks what is new.")

    def _say(self, status: int, text: str) -> None:
        self.close_connection = True
        raw = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: nginx logs the requests."""
