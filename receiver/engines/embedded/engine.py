"""The engine for machines without systemd (containers): supervisord, with the same promises about releases.

It lacks a sandbox, limits on the sum of an app's processes, and timers; docs/installing.md says so. A program of
supervisord's is one process: `blog.v8.web.1`. Its file exists while the process is wanted; a program without a file
is stopping, and is forgotten when it has stopped.
"""

from __future__ import annotations

import grp
import pwd
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from receiver import names, settings
from receiver.engines.base import Job, ProcessState, ProcessStatus, Service, wait_until_it_listens
from receiver.engines.embedded import NAME, jobs, programs, supervisord
from receiver.engines.embedded.logs import LogFiles
from receiver.engines.embedded.programs import Name, Program
from receiver.engines.embedded.supervisord import Supervisor
from receiver.errors import HostFault, Rejected, as_root
from receiver.model import Listen, Release
from receiver.names import AppName, TypeName
from receiver.paths import SHIPIT_USER, Layout, app_user, build_user
from receiver.system import apt, disk, family
from receiver.system.run import start

SETTLES = 3.0  # s; longer than the time that shipit's own programs must stay up to count as running
KEPT_LOGS = 10  # releases of an app whose logs are kept
STATES: Mapping[int, ProcessState] = {
    supervisord.STOPPED: ProcessState.STOPPED,
    # It runs; supervisord waits only to see whether it stays up (startsecs).
    supervisord.STARTING: ProcessState.RUNNING,
    supervisord.RUNNING: ProcessState.RUNNING,
    supervisord.BACKOFF: ProcessState.FAILED,
    supervisord.STOPPING: ProcessState.STOPPING,
    supervisord.EXITED: ProcessState.FAILED,
    supervisord.FATAL: ProcessState.FAILED,
}
ENDED = (supervisord.STOPPED, supervisord.EXITED, supervisord.FATAL)


class EmbeddedEngine(LogFiles):
    """Implements `Engine`. Needs root and a running `shipit-supervisord`; raises HostFault if that does not answer.

    Not `Warm`: without timers nothing would end the warm processes. Not `Early`: starts are not slow here, and a job's
    keeper ends with the agent by itself. Not `Adopts`: nothing here ends the processes of a session.
    """

    name = NAME

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._supervisor = Supervisor(layout)

    def takes(self, release: Release) -> bool:
        # podman needs namespaces, which a machine without systemd (mostly a container itself) does not allow.
        return not (release.image or release.machine)

    def services(self) -> list[Service]:
        try:
            known = self._settled()
        except HostFault as failure:
            return [Service("the process supervisor runs", False, failure.hint)]
        named = sorted(name for name in known if name.startswith("shipit-") and name != "shipit-reconcile")
        running = [
            Service(name, known[name]["state"] == supervisord.RUNNING, as_root(f"tail {known[name]['stdout_logfile']}"))
            for name in named
        ]
        return [*running, self._place_of_sockets()]

    def _settled(self) -> dict[str, Mapping[str, Any]]:
        """What supervisord says once none of shipit's own programs is in its first seconds: until then a program may be
        well or in a crash loop."""
        deadline = time.monotonic() + SETTLES
        while True:
            known = self._supervisor.programs()
            starting = [name for name, info in known.items() if info["state"] == supervisord.STARTING]
            if not any(name.startswith("shipit-") for name in starting) or time.monotonic() > deadline:
                return known
            time.sleep(0.1)

    def _place_of_sockets(self) -> Service:
        """A container can rarely mount a file system itself; its host can. So this is a remark, not a fault."""
        own = self._layout.run.is_mount()
        what = "the apps' sockets have a file system of their own"
        shared = (
            f"the apps' sockets share a file system with {self._layout.run.parent}, which an app can fill: SECURITY.md"
        )
        return Service(what if own else shared, True, "")

    def prepare(self, app: AppName) -> None:
        """Make the directory of the app's logs, which `shipit` may read and other apps may not."""
        with disk.opened_dir(self._layout.log) as logs:
            disk.make_dir(logs, app, 0o2750, 0, grp.getgrnam(SHIPIT_USER).gr_gid)

    def forget(self, app: AppName) -> None:
        for release in {name.release for name in self._known(app)}:
            self.stop(app, release, wait=False)
        # No drain when an app is destroyed. By user, which also finds processes that left their process group.
        users = [user.pw_uid for user in pwd.getpwall() if user.pw_name in (app_user(app), build_user(app))]
        while left := family.of_users(users) or self._running(app):
            family.kill(left if isinstance(left, set) else ())
            time.sleep(0.05)
        self._sweep(app)
        disk.remove_tree(self._layout.log / app)

    def start(self, release: Release) -> None:
        self._sweep(release.app)
        self._prune_logs(release.app, release.number)
        defined = self._programs(release)
        for program in defined:
            supervisord.write(self._layout, program)
        wanted = [program.name for program in defined]
        self._supervisor.load(wanted)
        for name in wanted:
            self._supervisor.start(name)

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        stopping = [name for name in self._known(app) if name.release == number]
        for name in stopping:
            disk.remove_file(self._file(name))
        for name in stopping:
            self._supervisor.stop(str(name))
        if wait:
            # supervisord limits this itself: it sends SIGKILL after each program's drain.
            while any(name.release == number for name in self._running(app)):
                time.sleep(0.1)
        self._sweep(app)

    def boot_with(self, app: AppName, release: Release | None) -> None:
        number = release.runs_as if release else 0
        for path, name in self._files(app):
            text = path.read_text()
            boots = "true" if name.release == number else "false"
            changed = re.sub(r"^autostart = .*$", f"autostart = {boots}", text, flags=re.MULTILINE)
            if changed != text:
                disk.write_atomically(path, changed.encode(), 0o644)

    def restart(self, release: Release, kind: TypeName | None) -> None:
        for process, index in release.running():
            if kind in (None, process.type):
                name = str(Name(release.app, release.runs_as, process.type, index))
                self._supervisor.stop(name)
                self._await_end(name, process.drain + 10)
                paths = self._layout.app(release.app).release(release.runs_as)
                # An explicit restart does not wait for the pause after a crash (inside/launch.py).
                disk.remove_below(self._layout.run, *paths.starts(process.type, index))
                disk.remove_file(self._layout.run / "processes" / f"{name}.starts")
                self._supervisor.start(name)
                if process.listen is not Listen.NONE:
                    wait_until_it_listens(paths.socket(process.type, index))

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        self._sweep(app)
        return [self._status(name, info) for name, info in self._infos(app).items()]

    def defined(self, app: AppName) -> set[int]:
        return {name.release for _, name in self._files(app)}

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        known = settings.load(self._layout.settings)
        memory, tasks = job.limits.memory or known.build_memory, job.limits.tasks or known.build_tasks
        return jobs.run(self._layout, job, stdin, stdout, stderr, tty=tty, memory=memory, tasks=tasks)

    def install_packages(self, app: AppName, packages: Sequence[str], output: int) -> int:
        return start(apt.install(packages), env=apt.ENVIRONMENT, stdout=output, stderr=output).wait()

    def stop_job(self, name: str) -> None:
        jobs.stop(self._layout, name)

    def files(self, release: Release) -> dict[str, str]:
        return {f"{program.name}.conf": program.text() for program in self._programs(release)}

    # -- one program

    def _programs(self, release: Release) -> list[Program]:
        return [
            programs.program(self._layout, release, process, index, boot="autostart = true\n" in self._text(name))
            for process, index in release.running()
            if (name := Name(release.app, release.runs_as, process.type, index))
        ]

    def _text(self, name: Name) -> str:
        try:
            return self._file(name).read_text()
        except FileNotFoundError:
            return ""

    def _file(self, name: Name) -> Path:
        return self._layout.supervisor / f"{name}.conf"

    def _status(self, name: Name, info: Mapping[str, Any]) -> ProcessStatus:
        state, pid = STATES.get(int(info["state"]), ProcessState.FAILED), int(info["pid"])
        run = self._layout.roots / "processes"
        # The process uses sd_notify(3) and has not sent READY=1 yet.
        if state is ProcessState.RUNNING and (run / f"{name}.notify").exists():
            state = ProcessState.STARTING
        starts = 1
        with suppress(FileNotFoundError, ValueError):
            starts = int((run / f"{name}.starts").read_text())
        mine = {pid} | family.below(pid) if pid else set()
        tasks, cpu = family.work(mine)
        return ProcessStatus(
            release=name.release,
            process=name.process,
            index=name.index,
            state=state,
            pid=pid,
            since=float(info["start"] if pid else info["stop"]),
            restarts=max(0, starts - 1),
            memory=family.memory(mine),
            tasks=tasks,
            cpu=cpu,
        )

    # -- what supervisord and the directory know

    def _infos(self, app: AppName) -> dict[Name, Mapping[str, Any]]:
        found = {}
        for text, info in self._supervisor.programs().items():
            name = Name.parse(text)
            if name and name.app == app:
                found[name] = info
        return found

    def _files(self, app: AppName) -> list[tuple[Path, Name]]:
        named = [
            (path, Name.parse(path.name.removesuffix(".conf")))
            for path in self._layout.supervisor.glob(f"{app}.v*.conf")
        ]
        return [(path, name) for path, name in named if name and name.app == app]

    def _known(self, app: AppName) -> set[Name]:
        return set(self._infos(app)) | {name for _, name in self._files(app)}

    def _running(self, app: AppName) -> list[Name]:
        return [name for name, info in self._infos(app).items() if info["state"] not in ENDED]

    def _sweep(self, app: AppName) -> None:
        """Forget stopped programs without a file, and kill processes of theirs that had left the process group."""
        wanted = {name for _, name in self._files(app)}
        running = set(self._running(app))
        for name in set(self._infos(app)) - wanted - running:
            family.kill(family.with_environment(_marks(name)))
            self._supervisor.forget(str(name))
            for suffix in ("starts", "notify"):
                disk.remove_file(self._layout.roots / "processes" / f"{name}.{suffix}")

    def _await_end(self, name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._supervisor.call("getProcessInfo", name)["state"] not in ENDED:
            if time.monotonic() > deadline:
                raise HostFault(f"{name} did not stop in {seconds:g} s.", hint="shipit doctor")
            time.sleep(0.05)

    def _prune_logs(self, app: AppName, number: int) -> None:
        for path in (self._layout.log / app).glob("v*"):
            with suppress(Rejected):
                if names.release_number(path.name) <= number - KEPT_LOGS:
                    disk.remove_tree(path)


def _marks(name: Name) -> list[str]:
    """The variables that the launcher sets for this process and all it starts."""
    return [f"SHIPIT_APP={name.app}", f"SHIPIT_RELEASE=v{name.release}", f"SHIPIT_PROCESS={name.process}.{name.index}"]
