"""The pipes to the hooks: their shell can name nine descriptors, and a library that is loaded into everything on the
server (LD_PRELOAD, ld.so.preload) may hold some of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MADE = "from receiver.gate.hookline import HookLine\nwith HookLine.made() as line:\n    print(*sorted(line.theirs))"


@pytest.mark.parametrize("held", [0, 2, 5])
def test_the_far_ends_have_the_lowest_numbers_that_are_free(held: int) -> None:
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(held)]
    try:
        # Its own are 0, 1, 2; these come next, as a library's would.
        moved = "".join(f"os.dup2({fd}, {number});" for number, fd in enumerate(others, start=3))
        result = subprocess.run(
            [sys.executable, "-c", f"import os;{moved}os.closerange({3 + held}, 100)\n{MADE}"],
            pass_fds=others, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        for fd in others:
            os.close(fd)
    assert result.stdout.split() == [str(3 + held), str(4 + held)], result.stderr
