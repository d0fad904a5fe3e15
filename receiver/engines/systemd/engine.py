"""The engine of a systemd host: unit files in /etc/systemd/system, calls (bus.py), systemctl(1) (ctl.py), systemd-run(1).

A unit name carries its release, so a unit file is new or unchanged and needs no daemon-reload (which takes longer
than all the rest of a start). What somebody waits for on every deploy is a call, which spares a program (9 ms).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from receiver import settings
from receiver.engines.base import (
    JOB_KINDS,
    Job,
    ProcessState,
    ProcessStatus,
    Service,
    Usage,
    app_word,
    wait_until_it_listens,
)
from receiver.engines.systemd import NAME, bus, units
from receiver.engines.systemd.ctl import systemctl
from receiver.engines.systemd.files import write
from receiver.engines.systemd.logs import Journal
from receiver.engines.systemd.packages import Packages
from receiver.engines.systemd.timers import Clock
from receiver.errors import HostFault, as_root
from receiver.model import CheckKind, Limits, Listen, Release
from receiver.names import AppName, TypeName
from receiver.paths import PROXY_GROUP, Layout, app_user
from receiver.system import disk
from receiver.system.render import prepared
from receiver.system.run import CLEAN, run, start

TIMED_OUT, KILLED, STOPPED = 124, 128, 128 + signal.SIGTERM
# systemd's own exit codes for a program that it could not execute as asked (systemd.exec(5), 200/CHDIR on).
NEVER_STARTED = range(200, 256)
SHOWN = (
    "Id", "ActiveState", "MainPID", "NRestarts", "MemoryCurrent", "TasksCurrent", "CPUUsageNSec",
    "ExecMainStartTimestampMonotonic",
)  # fmt: skip


class SystemdEngine(Journal, Clock, Packages):
    """See `Engine`, `Warm`, `Early`, `Adopts`, `Timed`, `Plans` and `Machine` for the promises.

    An engine whose processes are units as well (of a container, of a virtual machine) is one of these with other
    `files`; the rest (start, drain, boot, warm, journal) holds for any unit of this name.
    """

    name = NAME

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._own: str | None = None

    def takes(self, release: Release) -> bool:
        return True

    def files(self, release: Release) -> dict[str, str]:
        return units.unit_files(release, self._layout, kvm=release.machine and _has_group(KVM))

    def services(self) -> list[Service]:
        states = {
            name: run(["systemctl", "is-active", name], check=False).out.strip()
            # Without the bus no login gets its session, and no build is started.
            for name in (
                "shipit-agent.socket",
                "shipit-gateway.socket",
                "shipit-hook.socket",
                "shipit-certificates.timer",
                "shipit-storage.timer",
                "dbus.service",
                "systemd-journald.service",
            )
        }
        return [
            Service(f"{name} is {state}", state == "active", as_root(f"systemctl start {name}"))
            for name, state in states.items()
        ]

    def look_every(self, app: AppName, seconds: int) -> None:
        name = units.look_name(app)
        path = self._layout.units / name
        if not seconds:
            if path.exists():
                systemctl("disable", "--quiet", "--now", name)
                disk.remove_file(path)
                systemctl("daemon-reload")
        elif write(self._layout.units, {name: units.look_timer(app, seconds)}) or not self._is_up(name):
            systemctl("daemon-reload")
            systemctl("enable", "--quiet", name)
            systemctl("restart", name)

    def _is_up(self, name: str) -> bool:
        return systemctl("is-active", "--quiet", name, check=False).code == 0

    def prepare(self, app: AppName) -> None:
        if self._layout.tmpfiles.is_dir():
            write(
                self._layout.units, {self._tmpfiles(app): units.tmpfiles(app, self._layout, app_user(app), PROXY_GROUP)}
            )
        if write(self._layout.units, units.app_units(app)):
            systemctl("daemon-reload")
        enabled = self._layout.units / "multi-user.target.wants" / units.app_target(app)
        if not enabled.is_symlink():
            enabled.parent.mkdir(exist_ok=True)
            disk.replace_symlink(enabled, f"../{units.app_target(app)}")

    def adopt(self, app: AppName, number: int, pid: int) -> None:
        with _logged(), bus.connect() as systemd:
            systemd.start_transient(units.worker_scope(app, number, pid))

    def ahead(self) -> Iterator[None]:
        return prepared(*units.TEMPLATES)

    def expect_jobs(self) -> None:
        if self._own is None:
            scope = units.agent_scope(os.getpid())
            with _logged(), bus.connect() as systemd:
                systemd.start_transient(scope)
                self._own = scope.name

    def forget(self, app: AppName) -> None:
        word = app_word(app)
        self.look_every(app, 0)
        # Not by a glob alone: `shipit-release-web-v*` of an app `web` is also a process `web` of an app `release`.
        listed = systemctl(
            "list-units", "--all", "--plain", "--no-legend", *(f"shipit-{kind}-{word}-v*.service" for kind in JOB_KINDS)
        )
        found = [line.split()[0] for line in listed.out.splitlines() if line.strip()]
        mine = [units.unit_pattern(app), units.warm_name(app, None), *(name for name in found if "@" not in name)]
        # Its worker, if one watches yet over what went live last.
        mine.append(f"shipit-worker-{word}-v*.scope")
        mine.append(units.timer_pattern(app))
        # No drain for what is being destroyed: the stop is asked for, so that nothing restarts, then all is killed.
        systemctl("stop", "--no-block", *mine)
        systemctl("kill", "--signal=SIGKILL", *mine, check=False)
        systemctl("stop", *mine, units.app_target(app), units.app_slice(app), check=False)
        for path in self._unit_files(app):
            disk.remove_file(path)
        for name in (units.app_target(app), units.app_slice(app)):
            disk.remove_file(self._layout.units / name)
            disk.remove_file(self._layout.units / "multi-user.target.wants" / name)
        self._forget_timers(app)
        disk.remove_tree(self._wants(app))
        disk.remove_file(self._tmpfiles(app))
        systemctl("reset-failed", *mine, check=False)
        # The dependency of multi-user.target on the app's is forgotten only by this.
        systemctl("daemon-reload")

    def expect_start(self, release: Release) -> None:
        with _logged():
            self._define(release)
            with bus.connect() as systemd:
                systemd.reread()

    def start(self, release: Release) -> None:
        self._define(release)
        notifying = [n for n, kind in self._names(release) if release.process(kind).check.kind is CheckKind.NOTIFY]
        others = [n for n, kind in self._names(release) if n not in notifying]
        # A start of Type=notify ends when the process says it is ready: that is the healthcheck's to wait for.

        def begin(systemd: bus.Bus) -> dict[str, str]:
            if warm := release.took_over:
                # The service too: it may just be about to stop them. What it has stopped is started again.
                systemd.stop_units([units.warm_name(release.app, warm, kind) for kind in ("timer", "service")])
            failed = systemd.start_units([*others, *notifying], until_done=others)
            if failed:
                # They may have been left failed by a crash loop, whose count a deliberate start begins anew.
                systemctl("reset-failed", *failed, check=False)
                failed = systemd.start_units([*failed], until_done=others)
            return failed

        failed = bus.talk(begin)
        if failed:
            raise HostFault(
                f"systemd could not start {release.app} {release.name}.",
                hint=f"See why: journalctl -b --no-pager -n 30 -u '{units.unit_pattern(release.app)}'",
                details=[f"{name}: {why}" for name, why in failed.items()][-10:],
            )

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        pattern = units.process_pattern(app, number)
        systemctl("stop", *([] if wait else ["--no-block"]), pattern)
        for path in self._unit_files(app, number):
            disk.remove_file(path)
        systemctl("reset-failed", pattern, check=False)
        with _logged(), bus.connect() as systemd:
            systemd.stop_units([units.warm_name(app, number)])
            systemd.reread()

    def keep_warm(self, release: Release, seconds: int) -> bool:
        idle = [name for name, kind in self._names(release) if release.process(kind).listen is Listen.NONE]
        if idle:
            systemctl("stop", "--no-block", *idle)
        # Last: who finds the timer may take all of them over.
        with _logged(), bus.connect() as systemd:
            systemd.start_transient(units.warm_timer(release.app, release.runs_as, seconds))
            return True
        return False

    def warm(self, app: AppName) -> set[int]:
        found = bus.talk(lambda systemd: systemd.active(units.warm_name(app, None)))
        return {units.warm_number(name) for name in found}

    def cool(self, app: AppName, but: Collection[int]) -> None:
        found = bus.talk(lambda systemd: systemd.active(units.unit_pattern(app)))
        running = {unit.release for name in found if (unit := units.parse_unit_name(name))}
        for number in (self.warm(app) | (self.defined(app) - running)) - {*but}:
            self.stop(app, number, wait=False)

    def boot_with(self, app: AppName, release: Release | None) -> None:
        # An older version may have written them.
        self.prepare(app)
        wants = self._wants(app)
        wants.mkdir(mode=0o755, exist_ok=True)
        wanted: dict[str, str] = {}
        if release:
            wanted = {name: units.unit_template(app, kind, release.runs_as) for name, kind in self._names(release)}
            templates = {self._layout.units / template for template in wanted.values()}
            if not all(template.exists() for template in templates):
                self._define(release)
            for template in templates:
                disk.fsync_file(template)
        for name, target in wanted.items():
            if not (wants / name).is_symlink():
                (wants / name).symlink_to(f"../{target}")
        disk.fsync_dir(self._layout.units)
        for link in wants.iterdir():
            if link.name not in wanted:
                link.unlink()
        disk.fsync_dir(wants)

    def restart(self, release: Release, kind: TypeName | None) -> None:
        paths = self._layout.app(release.app).release(release.runs_as)
        for process, index in release.running():
            if kind in (None, process.type):
                name = units.unit_name(release.app, process.type, release.runs_as, index)
                systemctl("reset-failed", name, check=False)
                # Whoever asks for a restart does not wait for the pause after a crash (inside/launch.py).
                disk.remove_below(self._layout.run, *paths.starts(process.type, index))
                systemctl("restart", name)
                if process.listen is not Listen.NONE:
                    wait_until_it_listens(paths.socket(process.type, index))

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        shown = systemctl("show", *(f"--property={name}" for name in SHOWN), units.unit_pattern(app)).out
        # What runs by the clock is none of these: its units have no index.
        found = [_status(dict(_pairs(block))) for block in shown.split("\n\n") if block.strip()]
        mine = [status for unit, status in found if unit and unit.app == app and status]
        if len({status.release for status in mine}) > 1:
            warm = self.warm(app)
            mine = [_as_kept(status, warm) for status in mine]
        return sorted(mine, key=lambda s: (s.release, s.process, s.index))

    def usage(self, app: AppName) -> Usage:
        wanted = ("MemoryCurrent", "MemoryMax", "TasksCurrent", "TasksMax", "CPUUsageNSec")
        shown = systemctl("show", *(f"--property={name}" for name in wanted), units.app_slice(app)).out
        known = {name: _number(value) for name, value in _pairs(shown)}
        return Usage(
            memory=known.get("MemoryCurrent", 0),
            most_memory=known.get("MemoryMax", 0),
            tasks=known.get("TasksCurrent", 0),
            most_tasks=known.get("TasksMax", 0),
            cpu=known.get("CPUUsageNSec", 0) / 1e9,
        )

    def defined(self, app: AppName) -> set[int]:
        return {int(path.name.rpartition("-v")[2].removesuffix("@.service")) for path in self._unit_files(app)}

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        unit = units.job_unit(job.name)
        properties = [word for line in self._cage(job) for word in ("-p", line)]
        words = ["--quiet", "--wait", "--service-type=exec", "--pty" if tty else "--pipe", f"--unit={unit}"]
        env = {**CLEAN, **({"TERM": "xterm-256color"} if tty else {})}
        argv = ["systemd-run", *words, *properties, "--", *job.argv]
        for attempt in range(ATTEMPTS):
            code = start(argv, env=env, stdin=stdin, stdout=stdout, stderr=stderr).wait()
            if code != 1 or attempt + 1 == ATTEMPTS or not self._was_lost(unit):
                break
            os.write(stderr, b"(systemd did not take it; once more)\n")
        return self._verdict(unit, code) if code else 0

    def _was_lost(self, unit: str) -> bool:
        """Whether systemd never began this job: it was executing itself anew when it was asked (daemon-reexec)."""
        return "not-found" in systemctl("show", "--property=LoadState", unit, check=False).out

    def stop_job(self, name: str) -> None:
        systemctl("stop", units.job_unit(name), check=False)
        # One whose agent was killed is left failed.
        systemctl("reset-failed", units.job_unit(name), check=False)

    def _cage(self, job: Job) -> list[str]:
        known = settings.load(self._layout.settings)
        paths = self._layout.app(job.app)
        limits = Limits(
            memory=job.limits.memory or known.build_memory,
            cpu=job.limits.cpu,
            tasks=job.limits.tasks or known.build_tasks,
        )
        return units.job_properties(
            app=job.app, user=job.user, cwd=job.cwd, writable=job.writable,
            group=job.group, hidden=(*job.hidden, *((paths.data, paths.sockets) if job.build else ())),
            timeout=job.timeout, limits=limits, config=job.config, build=job.build, owner=self._own_unit(),
            container=job.release is not None and job.release.image,
        )  # fmt: skip

    def _own_unit(self) -> str | None:
        """The unit of this process alone; None if systemd did not make one, which is no reason to run no job."""
        self.expect_jobs()
        return self._own

    def _verdict(self, unit: str, code: int) -> int:
        """The exact exit code of a job that did not end with 0: systemd-run only tells the plain ones."""
        shown = systemctl("show", "--property=LoadState,Result,ExecMainCode,ExecMainStatus", unit).out
        known = dict(_pairs(shown))
        systemctl("reset-failed", unit, check=False)
        status = int(known.get("ExecMainStatus") or 0)
        if known["LoadState"] == "not-found" and code != 1:
            # stop_job has put it away before it could be asked; 255 is systemd-run's word for any signal.
            return STOPPED if code == 255 else code
        if known["LoadState"] == "not-found":
            raise HostFault(f"systemd-run(1) could not run {unit}.", hint="shipit doctor")
        if known["Result"] == "timeout":
            return TIMED_OUT
        if known["ExecMainCode"] in ("2", "3"):
            return KILLED + status
        if code == 1 and status in NEVER_STARTED:
            raise HostFault(f"systemd could not start {unit} (exit status {status}).", hint="shipit doctor")
        return status or code

    def _define(self, release: Release) -> None:
        """Write the release's units, if they are not there already."""
        files = self.files(release)
        # boot_with makes them last; a boot before that starts another release, and removes these.
        if write(self._layout.units, files, disk.Lasts.LATER):
            systemctl("daemon-reload")

    def _names(self, release: Release) -> list[tuple[str, TypeName]]:
        return [
            (units.unit_name(release.app, process.type, release.runs_as, index), process.type)
            for process, index in release.running()
        ]

    def _unit_files(self, app: AppName, number: int | None = None) -> list[Path]:
        return list(self._layout.units.glob(f"shipit-{app_word(app)}-*-v{number or '*'}@.service"))

    def _tmpfiles(self, app: AppName) -> Path:
        return self._layout.tmpfiles / f"shipit-{app}.conf"

    def _wants(self, app: AppName) -> Path:
        return self._layout.units / f"{units.app_target(app)}.wants"


ATTEMPTS = 3  # to have a job begun
KVM = "kvm"  # who may use the processor for virtual machines (udev)


def _has_group(name: str) -> bool:
    # Slow to import, and only a virtual machine needs it.
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def _logged() -> Iterator[None]:
    """What systemd refuses is told in the journal."""
    try:
        yield
    except (HostFault, bus.Refused) as why:
        print(f"systemd: {why}", file=sys.stderr, flush=True)


def _pairs(block: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (line.partition("=") for line in block.splitlines())]


def _status(shown: dict[str, str]) -> tuple[units.UnitName | None, ProcessStatus | None]:
    unit = units.parse_unit_name(shown.get("Id", ""))
    state = _state(shown.get("ActiveState", ""))
    if unit is None or state is None:
        return None, None
    since = _number(shown["ExecMainStartTimestampMonotonic"]) / 1e6
    return unit, ProcessStatus(
        release=unit.release,
        process=unit.process,
        index=unit.index,
        state=state,
        pid=_number(shown["MainPID"]),
        since=round(time.time() - time.monotonic() + since, 3) if since else 0.0,
        restarts=_number(shown["NRestarts"]),
        memory=_number(shown["MemoryCurrent"]),
        tasks=_number(shown["TasksCurrent"]),
        cpu=_number(shown["CPUUsageNSec"]) / 1e9,
    )


def _as_kept(status: ProcessStatus, warm: Collection[int]) -> ProcessStatus:
    if status.release in warm and status.state is ProcessState.RUNNING:
        return replace(status, state=ProcessState.WARM)
    return status


def _state(active: str) -> ProcessState | None:
    if active in ("active", "reloading"):
        return ProcessState.RUNNING
    if active == "activating":
        return ProcessState.STARTING
    if active == "deactivating":
        return ProcessState.STOPPING
    if active == "failed":
        return ProcessState.FAILED
    # What is inactive has ended as it should, or was only looked up: nobody runs it any more.
    return None


def _number(text: str) -> int:
    """systemd writes `[not set]` or 2**64-1 for what it does not know."""
    number = int(text) if text.isdigit() else 0
    return 0 if number == 2**64 - 1 else number
