"""What supervisord starts as nginx: ends the workers of a killed nginx master, then becomes nginx.

Such workers outlive their master and keep its ports, so no new nginx could start. (systemd ends them by itself.)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from receiver.system import family

NGINX = "/usr/sbin/nginx"


def main(argv: list[str]) -> None:
    """Replace this program with nginx and these arguments; returns only by an exception."""
    for pid in orphans():
        with suppress(ProcessLookupError):
            # nginx(8): it stops listening at once, and ends after its current requests.
            os.kill(pid, signal.SIGQUIT)
    os.execv(NGINX, [NGINX, *argv])


def orphans() -> Iterator[int]:
    """The processes of nginx that have no master."""
    parents = family.parents()
    named = {pid for pid in parents if name_of(pid) == "nginx"}
    for pid in named:
        if parents[pid] not in named and title_of(pid).startswith(b"nginx: worker process"):
            yield pid


def name_of(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def title_of(pid: int) -> bytes:
    return _read(pid, "cmdline")


def _read(pid: int, what: str) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/{what}", "rb") as file:  # noqa: PTH123
        return file.read()
    return b""
