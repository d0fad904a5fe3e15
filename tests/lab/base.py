"""What every part of the lab needs: where things are kept, how a command is run, how a lock is held."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SHIPIT_TEST_CACHE") or "/var/cache/shipit-tests")
RUN = Path("/run/shipit-lab")


class LabError(Exception):
    """The lab itself could not do something; never a verdict on the product."""


@dataclass(frozen=True)
class Result:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def text(self) -> str:
        """All that was said, standard output first."""
        return self.out + self.err

    @property
    def remote(self) -> str:
        """Of a push: what the server said, without git's `remote: ` and its padding."""
        lines = re.findall(r"^remote: ?(.*)$", self.err.replace("\r", "\n"), re.MULTILINE)
        return "\n".join(re.sub(r"\x1b\[K", "", line).rstrip() for line in lines)

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class CommandFailed(AssertionError):
    """A command that had to succeed did not; its whole output is the message."""

    def __init__(self, what: str, result: Result) -> None:
        super().__init__(f"{what}\n{result}")
        self.result = result


def run(
    argv: Sequence[str | Path],
    *,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
    check: bool = True,
    what: str | None = None,
) -> Result:
    """Run a command to its end; past the timeout its whole process group is killed."""
    data = input.encode() if isinstance(input, str) else input
    process = subprocess.Popen(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        start_new_session=True,
    )
    label = what or " ".join(str(word) for word in argv)
    try:
        out, err = process.communicate(data, timeout=timeout)
    except BaseException as error:
        with_group(process.pid, signal.SIGKILL)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            out, err = b"", b"(its output could not be read)"
        if isinstance(error, subprocess.TimeoutExpired):
            said = Result(-signal.SIGKILL, out.decode(errors="replace"), err.decode(errors="replace"))
            raise CommandFailed(f"not done after {timeout:g} s: {label}", said) from None
        raise
    result = Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
    if check and result.code != 0:
        raise CommandFailed(label, result)
    return result


def with_group(leader: int, number: signal.Signals) -> None:
    """Signal a whole process group, which may be gone already."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it however the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Take a lock file at once, or not at all. Closing the returned descriptor lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
