"""Waiting: for what something will be, and for a command that is under way."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from .base import CommandFailed, Result, with_group

Found = TypeVar("Found")


def wait_for(what: str, probe: Callable[[], Found], *, timeout: float = 30, every: float = 0.05) -> Found:
    """Poll until the probe answers something true, and hand that back."""
    deadline = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last answer: {found!r}")
        time.sleep(every)


class Background:
    """A command that is under way; its output goes to files, so it never blocks for want of a reader."""

    def __init__(
        self,
        argv: Sequence[str],
        stdin: int | IO[bytes] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=self._out,
            stderr=self._err,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )

    def so_far(self) -> str:
        """What it has said until now, standard output first."""
        return self._read(self._out) + self._read(self._err)

    def wait(self, timeout: float = 120) -> Result:
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            said = Result(-signal.SIGKILL, self._read(self._out), self._read(self._err))
            raise CommandFailed(f"not done after {timeout:g} s", said) from None
        return Result(code, self._read(self._out), self._read(self._err))

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        with_group(self.process.pid, number)

    def _read(self, file: IO[bytes]) -> str:
        return os.pread(file.fileno(), 1 << 26, 0).decode(errors="replace")
