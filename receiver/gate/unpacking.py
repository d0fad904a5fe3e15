"""Why git refused a push, in shipit's words. git refuses before it runs a hook, so no hook can explain it.

The errors of git and its children are read from a trace (git's api-trace2, "error" events) in an unnamed file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.errors import Rejected

# Bytes of the trace of one push; git stops at its first error.
_MAX_TRACE = 2**20
_HOLDS = "Nothing was received."


class Trace:
    """Collects the errors of the git that is started with `environment`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Trace]:
        fd = os.memfd_create("git-trace")
        try:
            yield cls(fd)
        finally:
            os.close(fd)

    def environment(self) -> dict[str, str]:
        """git opens the trace by this path, so no descriptor number has to be kept free for it."""
        return {"GIT_TRACE2_EVENT": f"/proc/{os.getpid()}/fd/{self._fd}"}

    def refusal(self, max_push: int, push_memory: int) -> Rejected | None:
        """The limit that the push exceeded, or None; both limits in MiB."""
        for said in self._errors():
            if "maximum allowed size" in said:
                return Rejected(
                    f"The push is larger than {max_push} MiB.",
                    holds=_HOLDS,
                    hint="Leave out what is no source (build results, data, videos), or keep it in Git LFS.\n"
                    "The server's administrator can raise max_push in /etc/shipit/shipit.yml.",
                )
            if "Out of memory" in said or "Cannot allocate memory" in said:
                return Rejected(
                    f"A commit, tag, tree or changed file of the push needs more than {push_memory} MiB of memory.",
                    holds=_HOLDS,
                    hint="If large files have changed: git -c core.bigFileThreshold=1m push …\n"
                    "The server's administrator can raise push_memory in /etc/shipit/shipit.yml.",
                )
        return None

    def _errors(self) -> Iterator[str]:
        for line in os.pread(self._fd, _MAX_TRACE, 0).splitlines():
            if line.startswith(b'{"event":"error"'):
                try:
                    yield str(json.loads(line)["msg"])
                except (ValueError, KeyError):
                    continue  # incomplete, or of another format
