"""What a laptop tells of a failure of its own."""

from __future__ import annotations

import sys

from receiver.errors import Failure


def told(failure: Failure) -> int:
    """Print a failure as the server does; returns its exit code."""
    sys.stdout.flush()
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    for line in failure.lines():
        sys.stderr.write(f"{red} !     {plain}{line}\n")
    return failure.exit_code
