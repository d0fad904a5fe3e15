"""The text for systemd: unit names and unit files. Pure: release, settings and paths in, text out.

In a unit's name the dashes of an app's name are written `_`. A dash nests slices (systemd.slice(5)): the slice of an
app `blog-eu` would be inside that of `blog`, and stop with it; and `blog` with a type `eu-web` would get the same unit
names as `blog-eu` with a type `web`. Names of apps and types contain no `_`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from receiver import names
from receiver.engines.base import app_word
from receiver.errors import Rejected
from receiver.model import CheckKind, Limits, ProcessType, Release
from receiver.names import AppName, TypeName
from receiver.paths import LAUNCH, PYTHON, Layout, app_user
from receiver.system.render import render

# The templates that a start and a job need, in the order in which a push needs them.
TEMPLATES = tuple(f"systemd/{name}.j2" for name in ("job.service", "app.slice", "app.target", "process.service"))
# MiB that a virtual machine needs beside its memory: qemu, and its translated code if there is no KVM.
BESIDE_MACHINE = 384
BUILD_SLICE = "shipit-build.slice"
SYSTEMCTL = "/usr/bin/systemctl"

_UNIT = re.compile(r"shipit-([^-@]+)-([^@]+)-(v[0-9]+)@([0-9]{1,3})\.service", re.ASCII)


@dataclass(frozen=True)
class UnitName:
    """The parts of a process's unit name."""

    app: AppName
    process: TypeName
    release: int
    index: int


def app_slice(app: AppName) -> str:
    return f"shipit-{app_word(app)}.slice"


def app_target(app: AppName) -> str:
    return f"shipit-{app_word(app)}.target"


def unit_template(app: AppName, process: TypeName, number: int) -> str:
    """The name of the unit file of one process type of one release; its instances are the processes."""
    return f"shipit-{app_word(app)}-{process}-v{number}@.service"


def unit_name(app: AppName, process: TypeName, number: int, index: int) -> str:
    return f"shipit-{app_word(app)}-{process}-v{number}@{index}.service"


def unit_pattern(
    app: AppName, process: TypeName | None = None, number: int | None = None, index: int | None = None
) -> str:
    """A glob for systemctl and journalctl that matches this app's processes and no other's; None means any."""
    return f"shipit-{app_word(app)}-{process or '*'}-v{number or '*'}@{index or '*'}.service"


def process_pattern(app: AppName, number: int) -> str:
    """Matches the processes of one release, but not its scheduled runs (timer_name), which end by themselves."""
    return f"shipit-{app_word(app)}-*-v{number}@[0-9]*.service"


# Stands in place of the index in the names of scheduled units.
BY_CLOCK = "t1"


def timer_name(app: AppName, process: TypeName, number: int, kind: str = "timer") -> str:
    """The timer of a scheduled process type, or the service that it starts."""
    return f"shipit-{app_word(app)}-{process}-v{number}@{BY_CLOCK}.{kind}"


def starter_name(app: AppName, process: TypeName, number: int) -> str:
    """The service that starts a run while another goes on; each such run is an instance of `unit_template`."""
    return f"shipit-{app_word(app)}-{process}-v{number}@start.service"


def run_pattern(app: AppName, process: TypeName | None = None, number: int | None = None) -> str:
    """A glob that matches scheduled runs, and no processes; None means any."""
    return f"shipit-{app_word(app)}-{process or '*'}-v{number or '*'}@t[0-9]*.service"


def timer_pattern(app: AppName) -> str:
    """A glob that matches every timer of the app's process types."""
    return f"shipit-{app_word(app)}-*-v*@{BY_CLOCK}.timer"


def timer_files(release: Release, layout: Layout, suspended: Collection[TypeName] = ()) -> dict[str, str]:
    """The timers of a release and the services that they start, by file name."""
    app, number = release.app, release.runs_as
    files = {}
    for process, schedule in release.scheduled:
        if process.type in suspended:
            continue
        run = timer_name(app, process.type, number, "service")
        starts = run
        if schedule.overlap:
            run, starts = unit_template(app, process.type, number), starter_name(app, process.type, number)
            files[starts] = render(
                "systemd/starter.service.j2", app=app, type=process.type, unit=run, systemctl=SYSTEMCTL
            )
        files[run] = _process(release, process, layout, "systemd/scheduled.service.j2", timeout=schedule.timeout)
        files[timer_name(app, process.type, number)] = render(
            "systemd/scheduled.timer.j2",
            app=app,
            type=process.type,
            calendars=schedule.calendars,
            missed=schedule.missed,
            starts=starts,
        )
    return files


def parse_unit_name(text: str) -> UnitName | None:
    """The parts of a process's unit name; None if it is another name."""
    match = _UNIT.fullmatch(text)
    if not match:
        return None
    try:
        return UnitName(
            names.app_name(match[1].replace("_", "-")),
            names.type_name(match[2]),
            names.release_number(match[3]),
            int(match[4]),
        )
    except Rejected:
        return None


def app_units(app: AppName) -> dict[str, str]:
    """The slice and the target of an app, by file name."""
    known = {"app": app, "slice": app_slice(app), "target": app_target(app)}
    return {
        app_slice(app): render("systemd/app.slice.j2", **known),
        app_target(app): render("systemd/app.target.j2", **known),
    }


def unit_files(release: Release, layout: Layout, *, kvm: bool = False) -> dict[str, str]:
    """One unit file for each process type of the release's formation, by file name. No text in it names the release:
    systemd takes that from the unit's name (%j). `kvm`: this machine has a group of that name."""
    wanted = {process.type: process for process, _ in release.running()}
    return {
        unit_template(release.app, kind, release.runs_as): _process(release, wanted[kind], layout, kvm=kvm)
        for kind in wanted
    }


def _process(
    release: Release,
    process: ProcessType,
    layout: Layout,
    template: str = "systemd/process.service.j2",
    *,
    kvm: bool = False,
    **more: object,
) -> str:
    app = layout.app(release.app)
    memory = process.limits.memory
    return render(
        template,
        app=release.app,
        release=f"v{release.runs_as}",
        type=process.type,
        # systemd.unit(5): a drop-in directory whose name ends in a dash is for all units with that prefix.
        dropins=f"shipit-{app_word(release.app)}-{process.type}-.service.d",
        target=app_target(release.app),
        slice=app_slice(release.app),
        user=app_user(release.app),
        python=PYTHON,
        launch=LAUNCH,
        config=app.config,
        data=app.data,
        sockets=app.sockets,
        notify=process.check.kind is CheckKind.NOTIFY,
        check_timeout=process.check.timeout,
        drain=process.drain,
        memory=memory + BESIDE_MACHINE if memory and release.machine else memory,
        cpu=process.limits.cpu,
        tasks=process.limits.tasks,
        container=release.image,
        machine=release.machine,
        kvm=kvm,
        **more,
    )


def tmpfiles(app: AppName, layout: Layout, user: str, group: str) -> str:
    """The tmpfiles.d(5) line that makes the app's socket directory at boot."""
    return f"d {layout.app(app).sockets} 2750 {user} {group} -\n"


def look_timer(app: AppName, every: int) -> str:
    """The text of the unit `look_name`: it starts shipit-look@.service, which setup has installed."""
    return render("systemd/look.timer.j2", app=app, every=every)


def look_name(app: AppName) -> str:
    return f"shipit-look@{app_word(app)}.timer"


Properties = tuple[tuple[str, str, object], ...]  # name, D-Bus type, value


@dataclass(frozen=True)
class Transient:
    """A unit without a file, as properties for systemd; `service` are those of the service that a timer starts."""

    name: str
    properties: Properties
    service: Properties = ()


def warm_timer(app: AppName, number: int, seconds: int) -> Transient:
    """The timer that stops the processes of a warm release when its time is over."""
    argv = [SYSTEMCTL, "stop", "--no-block", process_pattern(app, number)]
    return Transient(
        warm_name(app, number),
        (
            ("Description", "s", f"shipit keeps {app} v{number} warm"),
            ("TimersMonotonic", "a(st)", [("OnActiveSec", seconds * 10**6)]),
            ("AccuracyUSec", "t", 10**6),
            ("RemainAfterElapse", "b", False),
        ),
        (("Type", "s", "oneshot"), ("ExecStart", "a(sasb)", [(SYSTEMCTL, argv, False)])),
    )


def warm_name(app: AppName, number: int | None, kind: str = "timer") -> str:
    """The timer of a warm release, or the service that it starts; None: any release's (a glob)."""
    return f"shipit-warm-{app_word(app)}-v{number or '*'}.{kind}"


def warm_number(name: str) -> int:
    """The release's number from such a name."""
    return int(name.rpartition("-v")[2].partition(".")[0])


def worker_scope(app: AppName, number: int, pid: int) -> Transient:
    """The worker's unit. SIGTERM cancels its release; it then stops and removes what it had started, within a
    minute."""
    about = _scope(f"shipit worker of {app} v{number}", pid)
    # Half of the machine's memory, in parts of 2**32 (systemd's MemoryMaxScale): the worker runs git on untrusted data.
    limits = ("TimeoutStopUSec", "t", 60_000_000), ("MemoryMaxScale", "u", 2**31)
    return Transient(f"shipit-worker-{app_word(app)}-v{number}.scope", (*about, *limits))


def agent_scope(pid: int) -> Transient:
    """The unit that the jobs of one connection to the agent are bound to."""
    limits = ("MemoryMax", "t", 512 * 2**20), ("TasksMax", "t", 128)
    return Transient(f"shipit-agent-{pid}.scope", (*_scope("shipit agent with a job", pid), *limits))


def _scope(description: str, pid: int) -> Properties:
    """Properties of a unit for a process that is running already (systemd.scope(5))."""
    gone = "CollectMode", "s", "inactive-or-failed"
    return ("Description", "s", description), gone, ("PIDs", "au", [pid])


def job_unit(name: str) -> str:
    """The unit of a job; it differs from a process's name, which has an `@`."""
    return f"shipit-{name}.service"


def job_properties(
    *,
    app: AppName,
    user: str,
    cwd: Path,
    writable: tuple[Path, ...],
    hidden: tuple[Path, ...],
    timeout: int,
    limits: Limits,
    config: Path | None,
    build: bool,
    owner: str | None,
    container: bool = False,
    group: str = "",
) -> list[str]:
    """A job's sandbox, as `Name=value` for systemd-run(1) -p. The paths in `hidden` may be missing; `owner` is a unit
    whose end stops the job. `container`: the job runs podman."""
    text = render(
        "systemd/job.service.j2",
        app=app,
        user=user,
        group=group or app_user(app),
        cwd=cwd,
        slice=BUILD_SLICE,
        timeout=timeout,
        memory=limits.memory,
        cpu=limits.cpu,
        tasks=limits.tasks,
        config=config or "",
        writable=" ".join(map(str, writable)),
        hidden=" ".join(f"-{path}" for path in hidden),
        build=build,
        owner=owner or "",
        container=container,
        machine=False,
    )
    return [line for line in text.splitlines() if line and line[0] not in "#["]
