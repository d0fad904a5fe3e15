"""A server of the standard library, which SIGTERM ends at once with whatever it was doing; argv: a socket or a port."""

import os
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RELEASE = os.environ["SHIPIT_RELEASE"].encode()
NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/slow/"):
            time.sleep(float(self.path[6:]))
        self.answer()

    def do_POST(self) -> None:
        os.write(NOTES, self.rfile.read(int(self.headers["Content-Length"])) + b"\n")
        self.answer()

    def answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(RELEASE)))
        self.end_headers()
        self.wfile.write(RELEASE)

    def address_string(self) -> str:
        return "-"

    def log_message(self, format: str, *args: object) -> None:
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    where = sys.argv[1]
    if where.isdigit():
        ThreadingHTTPServer.request_queue_size = 128
        ThreadingHTTPServer(("127.0.0.1", int(where)), Handler).serve_forever()
    else:
        UnixServer(where, Handler).serve_forever()
