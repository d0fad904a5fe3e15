"""The two pipes between the gateway and the hooks of the git that it started (hooks/pre-receive, hooks/post-receive).

A hook writes its name and process id, its standard input and an empty line; it gets one line back, its exit code. Only
git and the programs that git starts inherit the other ends, so only a hook of this push can ask.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from receiver.errors import HostFault
from receiver.system.audit import where

# A POSIX shell redirects only descriptors of one digit (2.7).
_HIGHEST = 9
# Larger than the list of refs of any real push.
_MAX_QUESTION = 16 * 2**20


class HookLine:
    """Both pipes. `ended` is true when no process has the other ends open: git and its hooks are gone."""

    def __init__(self, asked: int, asks: int, answers: int, answered: int) -> None:
        self.ended = False
        self.theirs = (asks, answers)
        self._asked = asked
        self._answered = answered
        self._open = {asked, asks, answers, answered}
        self._said = b""

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[HookLine]:
        """Open the pipes. Call this before opening other files, because the descriptors need low numbers."""
        asked, asks = os.pipe()
        asked = _out_of_the_way(asked)
        answers, answered = os.pipe()
        line = cls(asked, asks, answers, _out_of_the_way(answered))
        try:
            if max(line.theirs) > _HIGHEST:
                raise HostFault(
                    "Too many files are open for a push.",
                    holds="Nothing was received.",
                    hint=f"Push again; the server's administrator looks with: {where()}",
                )
            yield line
        finally:
            for fd in line._open:
                os.close(fd)

    def environment(self) -> dict[str, str]:
        return {"SHIPIT_ASK": str(self.theirs[0]), "SHIPIT_ANSWER": str(self.theirs[1])}

    def give_away(self) -> None:
        """Close our copies of the other ends, once git has its own."""
        for fd in self.theirs:
            os.close(fd)
            self._open.discard(fd)

    def question(self, wait: float | None) -> tuple[str, int, list[bytes]] | None:
        """(hook, process id, lines of its input); None after `wait` seconds, or when git and its hooks are gone."""
        poll = select.poll()
        poll.register(self._asked, select.POLLIN)
        while b"\n\n" not in self._said:
            if not poll.poll(None if wait is None else wait * 1000):
                return None
            chunk = os.read(self._asked, 65536)
            if not chunk or len(self._said) > _MAX_QUESTION:
                self.ended = True
                return None
            self._said += chunk
        head, _, self._said = self._said.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        name, pid = first.decode().split()
        return name, int(pid), lines

    def reply(self, code: int) -> None:
        # The hook may have been killed meanwhile.
        with suppress(BrokenPipeError):
            os.write(self._answered, b"%d\n" % code)


def _out_of_the_way(fd: int) -> int:
    """A duplicate of the descriptor above the numbers that a shell can use; frees its low number."""
    moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGHEST + 1)
    os.close(fd)
    return moved
