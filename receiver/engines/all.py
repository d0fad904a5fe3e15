"""The engines that this version has, and those of this machine combined into one.

An engine is a package with NAME, here() and make(). Engines that take only some releases come first in the table, and
the others take the rest. The last one that is here keeps the machine's own services running.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from receiver import schedule
from receiver.engines import embedded, systemd
from receiver.engines.base import (
    Adopts,
    Containers,
    Early,
    Engine,
    Hints,
    Installs,
    Job,
    Logs,
    Machine,
    Meters,
    Plans,
    ProcessStatus,
    Service,
    Timed,
    TimedType,
    Timers,
    Usage,
    Wanted,
    Warm,
)
from receiver.errors import HostFault, Rejected, as_root
from receiver.model import ProcessType, Release
from receiver.names import AppName, TypeName
from receiver.paths import Layout


class Room(Protocol):
    """An engine's package. Importing it and calling `here` loads nothing else."""

    @property
    def NAME(self) -> str: ...

    def here(self) -> bool:
        """Whether this machine has it."""

    def hints(self) -> Hints:
        """What to type on a machine whose services this engine keeps running."""

    def make(self, layout: Layout) -> Engine:
        """Make the engine. Not named `engine`: that is the name of the module that this loads."""


ENGINES: tuple[Room, ...] = (systemd, embedded)


class Engines:
    """The engines of one machine as one: each release goes to the engine that takes it."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)

    def of(self, release: Release) -> Engine:
        """The engine that runs this release; raises HostFault if this machine has none for it."""
        for engine in self._engines:
            if engine.takes(release):
                return engine
        raise HostFault(f"This machine has nothing that could run {release.app} {release.name}.", hint="shipit doctor")

    def prepare(self, app: AppName) -> None:
        for engine in self._engines:
            engine.prepare(app)

    def forget(self, app: AppName) -> None:
        for engine in self._engines:
            engine.forget(app)

    def start(self, release: Release) -> None:
        self.of(release).start(release)

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        # All engines, because the release's record, which would say which one, may be gone.
        for engine in self._engines:
            engine.stop(app, number, wait=wait)

    def boot_with(self, app: AppName, release: Release | None, suspended: Collection[TypeName] = ()) -> None:
        """Make this release, and no other, start at boot and by the clock."""
        wanted = self.of(release) if release else None
        for engine in self._engines:
            mine = release if engine is wanted else None
            engine.boot_with(app, mine)
            if isinstance(engine, Timers):
                engine.keep_time(app, mine, suspended)

    def under_way(self, app: AppName) -> set[int]:
        return {n for engine in self._engines if isinstance(engine, Timers) for n in engine.under_way(app)}

    def timed(self, release: Release) -> list[TimedType]:
        engine = self.of(release)
        return engine.timed(release) if isinstance(engine, Timers) else []

    def usage(self, app: AppName) -> Usage | None:
        """What the app uses in all, if this machine's own engine knows."""
        engine = self._engines[-1]
        return engine.usage(app) if isinstance(engine, Meters) else None

    def last_words(self, release: Release, process: TypeName) -> list[str]:
        engine = self.of(release)
        return engine.last_words(release, process) if isinstance(engine, Timers) else []

    def restart(self, release: Release, kind: TypeName | None) -> None:
        self.of(release).restart(release, kind)

    def processes(self, app: AppName) -> list[ProcessStatus]:
        # Two engines may use units of the same systemd: then both list all of them.
        found = {(p.release, p.process, p.index): p for engine in self._engines for p in engine.processes(app)}
        return list(found.values())

    def defined(self, app: AppName) -> set[int]:
        return {number for engine in self._engines for number in engine.defined(app)}

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        engine = self.of(job.release) if job.release else self._engines[-1]
        return engine.run_job(job, stdin, stdout, stderr, tty=tty)

    def stop_job(self, name: str) -> None:
        for engine in self._engines:
            engine.stop_job(name)

    def keep_warm(self, release: Release, seconds: int) -> bool:
        engine = self.of(release)
        return isinstance(engine, Warm) and engine.keep_warm(release, seconds)

    def warm(self, app: AppName) -> set[int]:
        return {number for engine in self._engines if isinstance(engine, Warm) for number in engine.warm(app)}

    def cool(self, app: AppName, but: Collection[int]) -> None:
        for engine in self._engines:
            if isinstance(engine, Warm):
                engine.cool(app, but)

    def ahead(self) -> Iterator[None]:
        for engine in self._engines:
            if isinstance(engine, Early):
                yield from engine.ahead()

    def expect_jobs(self) -> None:
        for engine in self._engines:
            if isinstance(engine, Early):
                engine.expect_jobs()

    def expect_start(self, release: Release) -> None:
        engine = self.of(release)
        if isinstance(engine, Early):
            engine.expect_start(release)

    def adopt(self, app: AppName, number: int, pid: int) -> None:
        for engine in self._engines:
            if isinstance(engine, Adopts):
                engine.adopt(app, number, pid)

    def last_lines(self, release: Release, process: TypeName, index: int, count: int) -> list[str]:
        """The last lines that a process printed; empty if its engine keeps none."""
        engine = self.of(release)
        return engine.last_lines(release, process, index, count) if isinstance(engine, Logs) else []

    def show(self, wanted: Wanted, release: Release | None) -> int:
        """Copy the log of this release, or of the whole app, to standard output; returns an exit code."""
        engine = self.of(release) if release else self._engines[-1]
        if not isinstance(engine, Logs):
            raise Rejected(f"The engine {engine.name} keeps no logs.")
        return engine.show(wanted)

    def files(self, release: Release) -> dict[str, str]:
        """The files that the release's engine would write to start it."""
        engine = self.of(release)
        return engine.files(release) if isinstance(engine, Plans) else {}

    def look_every(self, app: AppName, seconds: int) -> None:
        engine = self._machine()
        if isinstance(engine, Timed):
            engine.look_every(app, seconds)
        elif seconds:
            raise Rejected("This machine has no timers.")

    def install_packages(self, app: AppName, packages: Sequence[str], output: int) -> int:
        engine = self._machine()
        if not isinstance(engine, Installs):
            raise Rejected(
                "Nothing installs packages on this machine.", hint=as_root(f"apt install {' '.join(packages)}")
            )
        return engine.install_packages(app, packages, output)

    def install_podman(self, output: int) -> int:
        engine = self._machine()
        if not isinstance(engine, Containers):
            raise HostFault(
                "Nothing on this machine runs container images: it has no systemd.", holds="Nothing was changed."
            )
        return engine.install_podman(output)

    def services(self) -> Sequence[Service]:
        return self._machine().services()

    def _machine(self) -> Machine:
        engine = self._engines[-1]
        assert isinstance(engine, Machine), engine
        return engine


def here(layout: Layout) -> Engines:
    """The engines of this machine."""
    return Engines([room.make(layout) for room in ENGINES if room.here()])


def refuse_untimely(layout: Layout, processes: Sequence[ProcessType]) -> None:
    """Raise Rejected if a process has a schedule and no engine of this machine has timers."""
    timed = [(process, process.schedule) for process in processes if process.schedule]
    if not timed:
        return
    keeps = next((e for e in (room.make(layout) for room in ENGINES if room.here()) if isinstance(e, Timers)), None)
    if keeps is None:
        first = timed[0][0]
        raise Rejected(
            f"{first.type} runs by the clock, and without systemd nothing here keeps time.",
            hint="Run a scheduler as a process type of its own, such as APScheduler or supercronic,\n"
            f"or have a crontab of the machine call: shipit run APP '{first.command[:60]}'",
        )
    for process, when in timed:
        for calendar in when.calendars:
            if not keeps.understands(calendar):
                raise Rejected(f"{process.type}: {calendar!a} is no time.", hint=schedule.HINT)


def hints() -> Hints:
    """What an administrator of this machine types; loads no engine."""
    return _machine().hints()


def machine() -> str:
    """The name of the engine that keeps this machine's services running."""
    return _machine().NAME


def has_timers(layout: Layout) -> bool:
    """Whether this machine has timers."""
    return isinstance(_machine().make(layout), Timed)


def _machine() -> Room:
    return [room for room in ENGINES if room.here()][-1]
