"""One-off commands: a line for the shell in a file of the ledger, which the agent runs by its id (Verb.RUN)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.paths import AppPaths
from receiver.system import disk


@contextmanager
def written(paths: AppPaths, line: str, alone: str = "") -> Iterator[str]:
    """The id of this line, for as long as the block lasts. `alone`: not beside a run by the clock of this process type, or
    another of these (inside/launch.py)."""
    run_id = secrets.token_hex(20)
    paths.runs.mkdir(exist_ok=True)
    path = paths.runs / f"{run_id}.json"
    disk.write_atomically(path, json.dumps({"command": line, **({"alone": alone} if alone else {})}).encode(), 0o640)
    try:
        yield run_id
    finally:
        path.unlink(missing_ok=True)
