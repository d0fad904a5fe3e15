"""Prints a failure for people. The laptop's client imports this before each command, so it imports little."""

from __future__ import annotations

import sys

from receiver.errors import Failure


def told(failure: Failure) -> int:
    """Print ` !     ` before each line on standard error, red on a terminal; returns the exit code of the failure."""
    sys.stdout.flush()
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    for line in failure.lines():
        sys.stderr.write(f"{red} !     {plain}{line}\n")
    return failure.exit_code
