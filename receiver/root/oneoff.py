"""One-off commands: a line for the shell in a file of the ledger, which the agent runs by the file's id (Verb.RUN)."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.errors import HostFault
from receiver.model import Release
from receiver.paths import AppPaths
from receiver.root.client import Agent
from receiver.system import disk
from receiver.system.drain import drained

MOST = 2**14  # bytes of an unwatched command's output that are kept


@contextmanager
def written(paths: AppPaths, line: str, alone: str = "") -> Iterator[str]:
    """The id of this line; the file exists inside the block. `alone`: a process type; the command does not run at the
    same time as a scheduled run of that type, or another command with the same `alone` (inside/launch.py)."""
    run_id = secrets.token_hex(20)
    paths.runs.mkdir(exist_ok=True)
    path = paths.runs / f"{run_id}.json"
    disk.write_atomically(path, json.dumps({"command": line, **({"alone": alone} if alone else {})}).encode(), 0o640)
    try:
        yield run_id
    finally:
        path.unlink(missing_ok=True)


def run_unwatched(
    agent: Agent, paths: AppPaths, release: Release, line: str, *, stdin: int, seconds: float, what: str
) -> tuple[int, list[str]]:
    """Run this line in a release to its end, for a caller that needs only the exit code and the printed lines.

    After `seconds` it is ended and HostFault is raised; `what` is the subject of that sentence.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        agent.hang_up()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        with written(paths, line) as run_id, drained(MOST) as said:
            code = agent.run(release.app, release.number, run_id, (stdin, said.fd, said.fd), tty=False)
    except HostFault as fault:
        if late.is_set():
            raise HostFault(f"{what} did not end within {seconds:.0f} s.") from fault
        raise
    finally:
        timer.cancel()
    return code, said.text.decode(errors="replace").strip().splitlines()
