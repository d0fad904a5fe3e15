"""The engine of a systemd host: unit files in /etc/systemd/system, calls (bus.py), systemctl(1) (ctl.py), systemd-run(1).

A unit's name contains its release, so a unit file is new or unchanged, and systemd needs no daemon-reload (which takes
longer than the rest of a start). Calls that every deploy waits for go over the bus, which saves a program (9 ms).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from receiver.engines.base import (
    JOB_KINDS,
    ProcessStatus,
    Service,
    Usage,
    app_word,
    wait_until_it_listens,
)
from receiver.engines.systemd import NAME, bus, units
from receiver.engines.systemd.ctl import systemctl
from receiver.engines.systemd.files import write
from receiver.engines.systemd.jobs import Jobs
from receiver.engines.systemd.logs import Journal
from receiver.engines.systemd.packages import Packages
from receiver.engines.systemd.shown import SHOWN, as_kept, counter, pairs, status_of
from receiver.engines.systemd.timers import Clock
from receiver.errors import HostFault, as_root
from receiver.model import CheckKind, Listen, Release
from receiver.names import AppName, TypeName
from receiver.paths import PROXY_GROUP, Layout, app_user
from receiver.system import disk
from receiver.system.render import prepared
from receiver.system.run import run


class SystemdEngine(Jobs, Journal, Clock, Packages):
    """Implements `Engine`, `Warm`, `Early`, `Adopts`, `Timed`, `Plans` and `Machine`.

    An engine for containers or virtual machines, whose processes are units as well, is a subclass with other `files`;
    the rest (start, drain, boot, warm, journal) works for any unit with such a name.
    """

    name = NAME

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def takes(self, release: Release) -> bool:
        return True

    def files(self, release: Release) -> dict[str, str]:
        return units.unit_files(release, self._layout, kvm=release.machine and _has_group(KVM))

    def services(self) -> list[Service]:
        states = {
            name: run(["systemctl", "is-active", name], check=False).out.strip()
            # Without D-Bus a login gets no session, and no build starts.
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
        with bus.logged(), bus.connect() as systemd:
            systemd.start_transient(units.worker_scope(app, number, pid))

    def ahead(self) -> Iterator[None]:
        return prepared(*units.TEMPLATES)

    def forget(self, app: AppName) -> None:
        word = app_word(app)
        self.look_every(app, 0)
        # Not by a glob alone: `shipit-release-web-v*` of an app `web` is also a process `web` of an app `release`.
        listed = systemctl(
            "list-units", "--all", "--plain", "--no-legend", *(f"shipit-{kind}-{word}-v*.service" for kind in JOB_KINDS)
        )
        found = [line.split()[0] for line in listed.out.splitlines() if line.strip()]
        mine = [units.unit_pattern(app), units.warm_name(app, None), *(name for name in found if "@" not in name)]
        # And the worker, if one still watches the release that went live last.
        mine.append(f"shipit-worker-{word}-v*.scope")
        mine.append(units.timer_pattern(app))
        # No drain when an app is destroyed: stop the units, so that nothing restarts, then kill everything.
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
        # Only a reload makes systemd forget that multi-user.target wants the app's target.
        systemctl("daemon-reload")

    def expect_start(self, release: Release) -> None:
        with bus.logged():
            self._define(release)
            with bus.connect() as systemd:
                systemd.reread()

    def start(self, release: Release) -> None:
        self._define(release)
        notifying = [n for n, kind in self._names(release) if release.process(kind).check.kind is CheckKind.NOTIFY]
        others = [n for n, kind in self._names(release) if n not in notifying]
        # A start of Type=notify ends when the process is ready: the healthcheck waits for that, not this.

        def begin(systemd: bus.Bus) -> dict[str, str]:
            if warm := release.took_over:
                # Stop the timer's service, too: it may be about to stop the processes. If it has, they are started
                # again.
                systemd.stop_units([units.warm_name(release.app, warm, kind) for kind in ("timer", "service")])
            failed = systemd.start_units([*others, *notifying], until_done=others)
            if failed:
                # A crash loop may have left them failed; an explicit start begins with a new count.
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
        with bus.logged(), bus.connect() as systemd:
            systemd.stop_units([units.warm_name(app, number)])
            systemd.reread()

    def keep_warm(self, release: Release, seconds: int) -> bool:
        idle = [name for name, kind in self._names(release) if release.process(kind).listen is Listen.NONE]
        if idle:
            systemctl("stop", "--no-block", *idle)
        # Last: as soon as the timer exists, a rollback may take over all of them.
        with bus.logged(), bus.connect() as systemd:
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
        # Files of an older version may differ.
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
                # An explicit restart does not wait for the pause after a crash (inside/launch.py).
                disk.remove_below(self._layout.run, *paths.starts(process.type, index))
                systemctl("restart", name)
                if process.listen is not Listen.NONE:
                    wait_until_it_listens(paths.socket(process.type, index))

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        shown = systemctl("show", *(f"--property={name}" for name in SHOWN), units.unit_pattern(app)).out
        # Scheduled runs are not among these: their units have no index.
        found = [status_of(dict(pairs(block))) for block in shown.split("\n\n") if block.strip()]
        mine = [status for unit, status in found if unit and unit.app == app and status]
        if len({status.release for status in mine}) > 1:
            warm = self.warm(app)
            mine = [as_kept(status, warm) for status in mine]
        return sorted(mine, key=lambda s: (s.release, s.process, s.index))

    def usage(self, app: AppName) -> Usage:
        wanted = ("MemoryCurrent", "MemoryMax", "TasksCurrent", "TasksMax", "CPUUsageNSec")
        shown = systemctl("show", *(f"--property={name}" for name in wanted), units.app_slice(app)).out
        known = {name: counter(value) for name, value in pairs(shown)}
        return Usage(
            memory=known.get("MemoryCurrent", 0),
            most_memory=known.get("MemoryMax", 0),
            tasks=known.get("TasksCurrent", 0),
            most_tasks=known.get("TasksMax", 0),
            cpu=known.get("CPUUsageNSec", 0) / 1e9,
        )

    def defined(self, app: AppName) -> set[int]:
        return {int(path.name.rpartition("-v")[2].removesuffix("@.service")) for path in self._unit_files(app)}

    def _define(self, release: Release) -> None:
        """Write the release's units, unless they are there already."""
        files = self.files(release)
        # boot_with makes them durable; a reboot before that starts another release, and reconcile removes these.
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


KVM = "kvm"  # the group that may use KVM (set by udev)


def _has_group(name: str) -> bool:
    # Slow to import, and needed only for a virtual machine.
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
