"""What runs the processes of releases: the protocol of an engine, and what an engine may be able to do beyond it.

An engine keeps the promises of `Engine`. Whoever wants more asks with isinstance for one of the other protocols below.
Only the agent starts and stops; nothing outside this package knows which engine it is.
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
    """`WARM`: it runs and gets no requests; its release was replaced, and whoever returns to it finds it there."""

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


# The launcher's longest pause before a start, and the time for which a process has to stay up to begin anew (s).
STEADY = 90.0


def keeps_ending(process: ProcessStatus, now: float) -> bool:
    """Whether it ended more than once, and lately: it may run at this moment, and is not well."""
    return process.restarts >= 2 and now - process.since < STEADY


@dataclass(frozen=True)
class Job:
    """A caged program that runs once to its end: a build, a release command, a check, a one-off run.

    `name` is unique on the host and made of typed names only (`build-blog-v8`). `config` (root-only file) reaches
    the program as the credential `config`. `hidden` is what it cannot see, where the engine has a way to hide it.
    A limit of 0 (`limits.tasks`, `memory`, `cpu`) is the server's default.
    """

    name: str
    app: AppName
    user: str
    argv: tuple[str, ...]
    cwd: Path
    writable: tuple[Path, ...]
    timeout: int
    # Of a user that is not one of the app's.
    group: str = ""
    hidden: tuple[Path, ...] = ()
    config: Path | None = None
    build: bool = False
    limits: Limits = Limits()
    # Whose slug it runs in, and so which engine runs it; a build has none yet.
    release: Release | None = None


def app_word(app: AppName) -> str:
    """The app's name where a dash separates words: no dash of its own, so where it ends is never in doubt."""
    return app.replace("-", "_")


# Each is ended with its app: an engine looks for them by name.
JobKind = Literal["build", "release", "check", "run", "certificate", "parts", "give", "measure"]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)


def job_name(kind: JobKind, app: AppName, number: int, *more: str) -> str:
    """The name of a job of one release: `build-my_blog-v8`."""
    return "-".join((kind, app_word(app), f"v{number}", *more))


@runtime_checkable
class Engine(Protocol):
    """What every engine can do. tests/contract runs the same promises against each."""

    @property
    def name(self) -> str: ...

    def takes(self, release: Release) -> bool:
        """Whether it can run what this release is made of."""

    def prepare(self, app: AppName) -> None:
        """Whatever the engine needs once for an app (slice, target). Repeatable."""

    def forget(self, app: AppName) -> None:
        """Stop every process of the app and remove all the engine knows of it."""

    def start(self, release: Release) -> None:
        """Define and start every process of the release's formation, beside whatever runs; raises HostFault.

        Returns when each has been executed, not when it is healthy. Repeatable. Where a process takes requests it is
        reached by the socket `ReleasePaths.socket`, whatever runs it.
        """

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        """Stop the processes of release `number` (SIGTERM, drain seconds, SIGKILL) and remove their definitions.

        With wait=False it returns at once and the drain goes on behind it. Nothing happens if there are none.
        """

    def boot_with(self, app: AppName, release: Release | None) -> None:
        """Make this release, and no other, come up when the machine does."""

    def restart(self, release: Release, kind: TypeName | None) -> None:
        """Restart the processes (of one type) in place, one after another."""

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        """All processes of all releases of the app that the engine knows."""

    def defined(self, app: AppName) -> set[int]:
        """The releases that it has definitions of, whether they run or not; `stop` removes them."""

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        """Run to the end in its cage; returns the exit code (128+signal when killed, 124 when out of time)."""

    def stop_job(self, name: str) -> None:
        """Kill a running job with everything it started. Nothing happens if there is none."""


@runtime_checkable
class Warm(Protocol):
    """It can let the processes of a release that was replaced run on."""

    def keep_warm(self, release: Release, seconds: int) -> bool:
        """Let the release's processes that take requests run on for so long, and stop the others; False, with nothing
        done, where that failed. A `stop` ends it early."""

    def warm(self, app: AppName) -> set[int]:
        """The releases that are kept warm (as `Release.runs_as` has them)."""

    def cool(self, app: AppName, but: Collection[int]) -> None:
        """Stop all that is kept warm but these, and forget what no longer is."""


@runtime_checkable
class Early(Protocol):
    """It can do before it is asked what a start or a job would otherwise wait for. Neither needs it."""

    def ahead(self) -> Iterator[None]:
        """Load what a start and a job need, a part a step."""

    def expect_jobs(self) -> None:
        """Begin what this process needs before its first job; returns at once."""

    def expect_start(self, release: Release) -> None:
        """Begin what the start of this release would otherwise wait for; returns at once."""


@dataclass(frozen=True)
class TimedType:
    """A process type that runs by the clock, as the engine knows it; what it has no word of is empty."""

    process: TypeName
    next: str = ""
    last: str = ""
    result: str = ""
    running: bool = False


@runtime_checkable
class Timers(Protocol):
    """It can start process types by the clock (`ProcessType.schedule`). `understands` and `timed` are asked by `shipit`,
    without root's rights."""

    def understands(self, calendar: str) -> bool:
        """Whether it is a time (schedule.py has looked at its characters only)."""

    def keep_time(self, app: AppName, release: Release | None, suspended: Collection[TypeName]) -> None:
        """Start by the clock what this release wants so, but what is suspended, and nothing of any other release.

        A run that is under way, of whichever release, goes on to its end. Repeatable."""

    def under_way(self, app: AppName) -> set[int]:
        """The releases (`runs_as`) of which a run is under way."""

    def timed(self, release: Release) -> list[TimedType]: ...

    def last_words(self, release: Release, process: TypeName) -> list[str]:
        """The last line that a run by the clock printed; empty when there is none."""


@runtime_checkable
class Adopts(Protocol):
    """It can keep a process that it did not start."""

    def adopt(self, app: AppName, number: int, pid: int) -> None:
        """Move the process, which makes vN of the app, into a unit of its own. Returns at once; what fails is logged."""


@runtime_checkable
class Timed(Protocol):
    """It can start something by itself, with nothing of ours that waits for the time."""

    def look_every(self, app: AppName, seconds: int) -> None:
        """Every so many seconds, also after a reboot, look whether what the app follows has moved (cli/pull.by_itself);
        0: no more. Repeatable; `forget` ends it."""


@runtime_checkable
class Installs(Protocol):
    """It can have apt change the system, which the agent itself cannot."""

    def install_packages(self, app: AppName, packages: Sequence[str], output: int) -> int:
        """Install packages of Debian by names that were parsed; what apt says goes to `output`. Its exit code."""


@runtime_checkable
class Containers(Protocol):
    """It runs container images."""

    def install_podman(self, output: int) -> int:
        """Install what they need, and nothing that runs by itself; what apt says goes to `output`. Its exit code."""


@dataclass(frozen=True)
class Wanted:
    """What `shipit logs` was asked for."""

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
    """It knows what the processes printed. Asked by `shipit`, without root's rights."""

    def last_lines(self, release: Release, process: TypeName, index: int, count: int) -> list[str]:
        """The last lines that one process of one release printed; empty when there are none."""

    def show(self, wanted: Wanted) -> int:
        """Copy the log to standard output, following it until interrupted when asked; returns an exit code."""


@dataclass(frozen=True)
class Usage:
    """What all processes of an app together take and may take. Memory is in bytes, `cpu` in seconds. A most of 0: no
    limit."""

    memory: int
    most_memory: int
    tasks: int
    most_tasks: int
    cpu: float


@runtime_checkable
class Meters(Protocol):
    """It knows what an app takes altogether. Asked by `shipit`, without root's rights."""

    def usage(self, app: AppName) -> Usage: ...


@runtime_checkable
class Plans(Protocol):
    """It can say what it would write."""

    def files(self, release: Release) -> dict[str, str]:
        """The text of each file that a start of the release needs, by name; nothing is written."""


@dataclass(frozen=True)
class Hints:
    """What an administrator types on a machine that this engine keeps running."""

    start_proxy: str
    start_agent: str
    agent_log: str
    # Whether nginx may execute itself anew: what keeps it finds it again by its pid file.
    renews_proxy: bool


@dataclass(frozen=True)
class Service:
    """One of shipit's own services, as doctor shows it; `hint` is what to type when it is not well."""

    what: str
    well: bool
    hint: str


@runtime_checkable
class Machine(Protocol):
    """It also keeps shipit's own services running: one engine of each machine does."""

    def services(self) -> Sequence[Service]:
        """How shipit's own services are. Needs root."""


def wait_until_it_listens(path: Path) -> None:
    """Wait until a process takes connections on its socket, LISTENS_WITHIN at most. Best effort: a process that never
    does is the next healthcheck's to find.

    The socket is the app's: one whose queue the app lets fill up would hold an ordinary connect(2) for ever.
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
