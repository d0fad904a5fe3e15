"""The lines that the administrator sees: one for each step, with what it did and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Step:
    """The current step; `done` collects what it changed."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def did(self, what: str) -> None:
        self.done.append(what)


@contextmanager
def step(label: str) -> Iterator[Step]:
    """Print the label at once, then what was done and the seconds it took. A failure only ends the line."""
    begun = time.monotonic()
    current = Step()
    sys.stdout.write(f"  {label:<11} ")
    sys.stdout.flush()
    try:
        yield current
    except BaseException:
        print(flush=True)
        raise
    what = ", ".join(current.done) or "as it was"
    print(f"{what:<52} {time.monotonic() - begun:5.1f} s", flush=True)
