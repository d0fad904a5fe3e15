"""What supervises the processes: systemd, or the embedded supervisord where systemd is not running.

Only the agent holds a manager. Nothing outside this package knows which one it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from receiver.model import Limits, Release
from receiver.names import AppName, TypeName


class ProcessState(str, Enum):
    """`WARM`: it runs and gets no requests; its release was replaced, and whoever returns to it finds it there."""

    RUNNING = "running"
    WARM = "warm"
    STARTING = "starting"
    STOPPING = "stopping"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProcessStatus:
    """One process as it is now. `since`: epoch seconds, `memory`: bytes (0 = unknown)."""

    release: int
    process: TypeName
    index: int
    state: ProcessState
    pid: int = 0
    since: float = 0.0
    restarts: int = 0
    memory: int = 0


@dataclass(frozen=True)
class Job:
    """A caged program that runs once to its end: a build, a release command, a check, a one-off run.

    `name` is unique on the host and made of typed names only (`build-blog-v8`). `config` (root-only file) reaches
    the program as the credential `config`. `limits.tasks`/`memory`/`cpu` of 0 mean the server's defaults.
    """

    name: str
    app: AppName
    user: str
    argv: tuple[str, ...]
    cwd: Path
    writable: tuple[Path, ...]
    timeout: int
    config: Path | None = None
    build: bool = False
    limits: Limits = Limits()


class Manager(Protocol):
    """The two implementations keep the same promises; `tests/` runs the same tests against both."""

    name: str

    def prepare(self, app: AppName) -> None:
        """Whatever the manager needs once for an app (slice, target). Repeatable."""

    def adopt(self, app: AppName, number: int, pid: int) -> None:
        """Move the process, which makes vN of the app, into a unit of its own. Returns at once; what fails is logged."""

    def expect_jobs(self) -> None:
        """Begin what this process needs before its first job, which would otherwise wait for it; returns at once."""

    def forget(self, app: AppName) -> None:
        """Stop every process of the app and remove all the manager knows of it."""

    def expect_start(self, release: Release) -> None:
        """Begin what the start of this release would otherwise wait for; returns at once. No start needs it."""

    def start(self, release: Release) -> None:
        """Define and start every process of the release's formation, beside whatever runs; raises HostFault.

        Returns when each has been executed, not when it is healthy. Repeatable.
        """

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        """Stop the processes of release `number` (SIGTERM, drain seconds, SIGKILL) and remove their definitions.

        With wait=False it returns at once and the drain goes on behind it.
        """

    def keep_warm(self, release: Release, seconds: int) -> bool:
        """Let the release's processes that take requests run on for so long, and stop the others; False, with nothing
        done, where the manager cannot. A `stop` ends it early."""

    def warm(self, app: AppName) -> set[int]:
        """The releases that are kept warm (as `Release.runs_as` has them)."""

    def cool(self, app: AppName, but: Collection[int]) -> None:
        """Stop all that is kept warm but these, and forget what no longer is."""

    def boot_with(self, app: AppName, release: Release | None) -> None:
        """Make this release, and no other, come up when the machine does."""

    def restart(self, release: Release, kind: TypeName | None) -> None:
        """Restart the processes (of one type) in place, one after another."""

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        """All processes of all releases of the app that the manager knows."""

    def defined(self, app: AppName) -> set[int]:
        """The releases that it has definitions of, whether they run or not; `stop` removes them."""

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        """Run to the end in its cage; returns the exit code (128+signal when killed, 124 when out of time)."""

    def stop_job(self, name: str) -> None:
        """Kill a running job with everything it started. Nothing happens if there is none."""


def booted_with_systemd() -> bool:
    """Whether systemd is the init system of this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def choose() -> Manager:
    """The manager of this machine."""
    if booted_with_systemd():
        from receiver.engines.systemd.engine import SystemdManager

        return SystemdManager()
    from receiver.engines.embedded.engine import EmbeddedManager

    return EmbeddedManager()
