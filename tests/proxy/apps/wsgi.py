"""A WSGI app that tells its release, notes each POST once, and can be slow."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

RELEASE = os.environ["SHIPIT_RELEASE"].encode()
NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path.startswith("/slow/"):
        time.sleep(float(path[6:]))
    if environ["REQUEST_METHOD"] == "POST":
        os.write(NOTES, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])) + b"\n")
    body = RELEASE
    if path == "/headers":
        told = {"RAW_URI": environ.get("RAW_URI", ""), **{k: v for k, v in environ.items() if k.startswith("HTTP_")}}
        body = "\n".join(f"{k}={v}" for k, v in sorted(told.items())).encode()
    start_response("500 Broken" if path == "/broken" else "200 OK", [("Content-Length", str(len(body)))])
    return [body]
