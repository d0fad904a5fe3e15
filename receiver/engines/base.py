"""What runs the processes of releases: the protocol of an engine, and optional protocols.

Every engine keeps the promises of `Engine`. Callers that need more ask with isinstance for one of the other protocols
below. Only the agent starts and stops processes; nothing outside this package knows which engine it is.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

from receiver.model import Limits, Release
from receiver.names import AppName, TypeName

LISTENS_WITHIN = 10.0  # seconds that a restart waits for one process before it goes on to the next


class ProcessState(str, Enum):
    """`WARM`: it runs, but gets no requests: its release was replaced, and a rollback can take the process over."""

    RUNNING = "running"
    WARM = "warm"
    STARTING = "starting"
    STOPPING = "stopping"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProcessStatus:
    """One process as it is now. `since`: seconds since the epoch; `memory`: bytes; `tasks`: threads and processes;
    `cpu`: seconds of CPU time since it started. 0: unknown."""

    release: int
    process: TypeName
    index: int
    state: ProcessState
    pid: int = 0
    since: float = 0.0
    restarts: int = 0
    memory: int = 0
    tasks: int = 0
    cpu: float = 0.0


# The launcher's longest pause before a start, plus the time for which a process must stay up to count as well (s).
STEADY = 90.0


def keeps_ending(process: ProcessStatus, now: float) -> bool:
    """Whether it has ended more than once, and lately: it may run at this moment, but it is not well."""
    return process.restarts >= 2 and now - process.since < STEADY


@dataclass(frozen=True)
class Job:
    """A sandboxed program that runs once to its end: a build, a release command, a check, a one-off run.

    `name` is unique on the host and made of typed names only (`build-blog-v8`). The file `config` (readable by root
    only) reaches the program as the credential `config`. `hidden` are paths that it cannot see, if the engine can hide
    them. A limit of 0 (`limits.tasks`, `memory`, `cpu`) means the server's default.
    """

    name: str
    app: AppName
    user: str
    argv: tuple[str, ...]
    cwd: Path
    writable: tuple[Path, ...]
    timeout: int
    # The group of a user that is not one of the app's users.
    group: str = ""
    hidden: tuple[Path, ...] = ()
    config: Path | None = None
    build: bool = False
    limits: Limits = Limits()
    # The release in whose slug it runs, which decides the engine; a build has none yet.
    release: Release | None = None


def app_word(app: AppName) -> str:
    """The app's name for names in which a dash separates words: without dashes, so its end is clear."""
    return app.replace("-", "_")


# The jobs of an app are ended with it: an engine finds them by these kinds in their names.
JobKind = Literal["build", "release", "check", "run", "certificate", "parts", "give", "measure"]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)


def job_name(kind: JobKind, app: AppName, number: int, *more: str) -> str:
    """The name of a job of one release: `build-my_blog-v8`."""
    return "-".join((kind, app_word(app), f"v{number}", *more))


@runtime_checkable
class Engine(Protocol):
    """What every engine can do. tests/contract tests each engine for the same promises."""

    @property
    def name(self) -> str: ...

    def takes(self, release: Release) -> bool:
        """Whether it can run a release of this kind (a slug, a container image, a virtual machine)."""

    def prepare(self, app: AppName) -> None:
        """Make what the engine needs once for an app (slice, target). Repeatable."""

    def forget(self, app: AppName) -> None:
        """Stop every process of the app and remove everything the engine has of it."""

    def start(self, release: Release) -> None:
        """Define and start every process of the release's formation, beside the running ones; raises HostFault.

        Returns when each has been executed, not when it is healthy. Repeatable. A process that takes requests does so
        on the socket `ReleasePaths.socket`, with every engine.
        """

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        """Stop the processes of release `number` (SIGTERM, drain seconds, SIGKILL) and remove their definitions.

        With wait=False it returns at once, and the drain goes on in the background. No effect if there are none.
        """

    def boot_with(self, app: AppName, release: Release | None) -> None:
        """Make this release, and no other, start at boot."""

    def restart(self, release: Release, kind: TypeName | None) -> None:
        """Restart the processes (of one type) in place, one after another."""

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        """All processes of all releases of the app that the engine knows."""

    def defined(self, app: AppName) -> set[int]:
        """The releases whose processes it has defined, running or not; `stop` removes these definitions."""

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        """Run it to its end in its sandbox; returns the exit code (128 + signal if killed, 124 if out of time)."""

    def stop_job(self, name: str) -> None:
        """Kill a running job and everything it started. No effect if there is none."""


@runtime_checkable
class Warm(Protocol):
    """An engine that can keep the processes of a replaced release running."""

    def keep_warm(self, release: Release, seconds: int) -> bool:
        """Let the release's processes that take requests run for `seconds` more, and stop its others. False, with
        nothing done, if that failed. A `stop` ends it early."""

    def warm(self, app: AppName) -> set[int]:
        """The releases that are kept warm, by the number `Release.runs_as`."""

    def cool(self, app: AppName, but: Collection[int]) -> None:
        """Stop all warm processes except those of these releases, and forget units that no longer run."""


@runtime_checkable
class Early(Protocol):
    """An engine that can prepare a start or a job, to save time. Starts and jobs work without it, too."""

    def ahead(self) -> Iterator[None]:
        """Load what a start and a job need; one part for each step of the iterator."""

    def expect_jobs(self) -> None:
        """Begin what this process needs before its first job; returns at once."""

    def expect_start(self, release: Release) -> None:
        """Begin work that the start of this release would otherwise wait for; returns at once."""


@dataclass(frozen=True)
class TimedType:
    """A process type that runs by the clock, as the engine knows it; unknown values are empty."""

    process: TypeName
    next: str = ""
    last: str = ""
    result: str = ""
    running: bool = False


@runtime_checkable
class Timers(Protocol):
    """An engine that can start process types by the clock (`ProcessType.schedule`). `shipit` may call `understands` and
    `timed`, without root's rights."""

    def understands(self, calendar: str) -> bool:
        """Whether it is a valid time (schedule.py has checked only its characters)."""

    def keep_time(self, app: AppName, release: Release | None, suspended: Collection[TypeName]) -> None:
        """Start this release's scheduled types by the clock, except suspended ones, and none of any other release.

        A run that goes on, of whichever release, is not stopped. Repeatable."""

    def under_way(self, app: AppName) -> set[int]:
        """The releases (by `runs_as`) that have a running scheduled run."""

    def timed(self, release: Release) -> list[TimedType]: ...

    def last_words(self, release: Release, process: TypeName) -> list[str]:
        """The last line that a scheduled run printed; empty if there is none."""


@runtime_checkable
class Adopts(Protocol):
    """An engine that can take over a process that it did not start."""

    def adopt(self, app: AppName, number: int, pid: int) -> None:
        """Move the process, the worker of vN, into a unit of its own. Returns at once; a failure is logged."""


@runtime_checkable
class Timed(Protocol):
    """An engine that can start something at intervals, while no process of ours waits."""

    def look_every(self, app: AppName, seconds: int) -> None:
        """Every `seconds`, also after a reboot, look whether the repository that the app follows has changed
        (cli/pull.by_itself); 0: never. Repeatable; `forget` ends it."""


@runtime_checkable
class Installs(Protocol):
    """An engine that can run apt, which the agent itself cannot, as it may not change the system."""

    def install_packages(self, app: AppName, packages: Sequence[str], output: int) -> int:
        """Install Debian packages by names that were parsed; apt's output goes to `output`. Returns its exit code."""


@runtime_checkable
class Containers(Protocol):
    """An engine that runs container images."""

    def install_podman(self, output: int) -> int:
        """Install podman, without services of its own; apt's output goes to `output`. Returns its exit code."""


@dataclass(frozen=True)
class Wanted:
    """What a user asked `shipit logs` for."""

    app: AppName
    process: TypeName | None
    release: int | None
    lines: int
    follow: bool
    since: str
    grep: str
    quiet: bool


@runtime_checkable
class Logs(Protocol):
    """An engine that knows what processes printed. `shipit` calls it, without root's rights."""

    def last_lines(self, release: Release, process: TypeName, index: int, count: int) -> list[str]:
        """The last lines that one process of one release printed; empty if there are none."""

    def show(self, wanted: Wanted) -> int:
        """Copy the log to standard output, following it until interrupted if asked; returns an exit code."""


@dataclass(frozen=True)
class Usage:
    """What all processes of an app use together, and their limits. Memory in bytes, `cpu` in seconds. A limit of 0: no
    limit."""

    memory: int
    most_memory: int
    tasks: int
    most_tasks: int
    cpu: float


@runtime_checkable
class Meters(Protocol):
    """An engine that knows what an app uses in all. `shipit` calls it, without root's rights."""

    def usage(self, app: AppName) -> Usage: ...


@runtime_checkable
class Plans(Protocol):
    """An engine that can show the files that it would write."""

    def files(self, release: Release) -> dict[str, str]:
        """The text of each file that a start of the release needs, by name; writes nothing."""


@dataclass(frozen=True)
class Hints:
    """What an administrator types on a machine whose services this engine keeps running."""

    start_proxy: str
    start_agent: str
    agent_log: str
    # Whether nginx may re-execute itself: the engine finds the new process by its pid file.
    renews_proxy: bool


@dataclass(frozen=True)
class Service:
    """One of shipit's own services, as doctor shows it; `hint` is what to type if it is not well."""

    what: str
    well: bool
    hint: str


@runtime_checkable
class Machine(Protocol):
    """An engine that also keeps shipit's own services running: one engine of each machine does."""

    def services(self) -> Sequence[Service]:
        """The state of shipit's own services. Needs root."""


def wait_until_it_listens(path: Path) -> None:
    """Wait until a process takes connections on its socket, at most LISTENS_WITHIN. If it never does, the next
    healthcheck finds that.

    The app owns the socket: if its queue is full, a blocking connect(2) would wait for ever.
    """
    deadline = time.monotonic() + LISTENS_WITHIN
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except BlockingIOError:
                return
            except OSError:
                time.sleep(0.02)
            else:
                return
