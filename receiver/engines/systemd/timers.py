"""Scheduled runs: a timer and a service for each process type with a schedule, of the live release.

The timers change with the release; a run goes on to its end: nothing here stops a service. If a run of a replaced
release goes on, its unit file stays until the next change, so that its end is reported as usual.
"""

from __future__ import annotations

from collections.abc import Collection

from receiver.engines.base import TimedType, app_word
from receiver.engines.systemd import bus, units
from receiver.engines.systemd.ctl import systemctl
from receiver.engines.systemd.files import write
from receiver.errors import HostFault
from receiver.model import Release
from receiver.names import AppName, TypeName
from receiver.paths import Layout
from receiver.system import disk
from receiver.system.run import run

SHOWN = ("NextElapseUSecRealtime", "LastTriggerUSec", "Result", "ExecMainStatus")
# The states of a run that is not over: one that was told to end still needs its files.
BUSY = ("active", "activating", "deactivating")


class Clock:
    """See `Timers` for the promises."""

    _layout: Layout

    def understands(self, calendar: str) -> bool:
        return run(["systemd-analyze", "calendar", "--", calendar], check=False).code == 0

    def keep_time(self, app: AppName, release: Release | None, suspended: Collection[TypeName]) -> None:
        files = units.timer_files(release, self._layout, suspended) if release else {}
        there = self._timed_files(app)
        if not files and not there:
            return
        timers = {name for name in files if name.endswith(".timer")}
        gone = {name for name in there if name.endswith(".timer")} - timers
        if write(self._layout.units, files):
            systemctl("daemon-reload")
        wants = self._layout.units / "timers.target.wants"
        wants.mkdir(mode=0o755, exist_ok=True)
        for name in timers:
            disk.replace_symlink(wants / name, f"../{name}")
        for name in gone:
            disk.remove_file(wants / name)

        def switch(systemd: bus.Bus) -> tuple[dict[str, str], list[str]]:
            systemd.stop_units([*gone])
            failed = systemd.start_units([*timers], until_done=timers)
            return failed, systemd.active(units.run_pattern(app), BUSY)

        failed, busy = bus.talk(switch)
        # Otherwise a timer that comes back with a later release would make up for missed runs.
        _forget_last(gone)
        for name in there - files.keys() - {*busy}:
            disk.remove_file(self._layout.units / name)
        disk.fsync_dir(wants)
        disk.fsync_dir(self._layout.units)
        if failed:
            raise HostFault(
                f"systemd did not start {', '.join(sorted(failed))}.",
                details=[f"{n}: {why}" for n, why in failed.items()],
            )

    def _forget_timers(self, app: AppName) -> None:
        """Remove all timers of the app, and their services. The app is stopped already."""
        _forget_last({name for name in self._timed_files(app) if name.endswith(".timer")})
        for name in self._timed_files(app):
            disk.remove_file(self._layout.units / "timers.target.wants" / name)
            disk.remove_file(self._layout.units / name)

    def under_way(self, app: AppName) -> set[int]:
        # Called at each pruning; most apps have no timers.
        if not self._timed_files(app):
            return set()
        busy = bus.talk(lambda systemd: systemd.active(units.run_pattern(app), BUSY))
        return {int(name.rpartition("-v")[2].partition("@")[0]) for name in busy}

    def timed(self, release: Release) -> list[TimedType]:
        found = []
        for process, schedule in release.scheduled:
            timer = self._shown(units.timer_name(release.app, process.type, release.runs_as))
            result = ""
            # Runs that may overlap have a unit each, which is gone when the run has ended.
            if timer["LastTriggerUSec"] and not schedule.overlap:
                service = self._shown(units.timer_name(release.app, process.type, release.runs_as, "service"))
                code = service["ExecMainStatus"]
                result = service["Result"] if code in ("", "0") else f"{service['Result']} ({code})"
            found.append(
                TimedType(
                    process.type,
                    next=timer["NextElapseUSecRealtime"],
                    last=timer["LastTriggerUSec"],
                    result=result,
                    running=_goes_on(release.app, process.type),
                )
            )
        return found

    def last_words(self, release: Release, process: TypeName) -> list[str]:
        unit = units.run_pattern(release.app, process, release.runs_as)
        argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", "1", "-u", unit]
        return run([*argv, "_TRANSPORT=stdout"], check=False).out.splitlines()[-1:]

    def _shown(self, name: str) -> dict[str, str]:
        said = systemctl("show", *(f"--property={key}" for key in SHOWN), name).out
        known = dict(line.partition("=")[::2] for line in said.splitlines())
        return {key: known.get(key, "").replace("n/a", "") for key in SHOWN}

    def _timed_files(self, app: AppName) -> set[str]:
        word = app_word(app)
        there = [*self._layout.units.glob(f"shipit-{word}-*@{units.BY_CLOCK}.*")]
        return {path.name for path in (*there, *self._layout.units.glob(f"shipit-{word}-*@start.service"))}


def _forget_last(timers: Collection[str]) -> None:
    """Make systemd forget when these timers last elapsed; only those with Persistent= have such a record."""
    for name in timers:
        systemctl("clean", "--what=state", name, check=False)


def _goes_on(app: AppName, process: TypeName) -> bool:
    """Whether a run of any release goes on. Needs no rights of root's."""
    pattern = units.run_pattern(app, process)
    listed = systemctl("list-units", "--plain", "--no-legend", f"--state={','.join(BUSY)}", pattern)
    return bool(listed.out.strip())
