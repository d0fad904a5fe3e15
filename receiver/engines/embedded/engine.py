"""The engine of machines without systemd (containers): supervisord, with the same promises about releases.

What it does not give, and docs/installing.md says so: a sandbox, limits on the sum of an app's processes, timers.
A program of supervisord's is one process: `blog.v8.web.1`. Its file exists as long as it is wanted; what supervisord
still knows without one is stopping, and is forgotten as soon as it has.
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

SETTLES = 3.0  # longer than shipit's own programs must stay up to count as running (s)
KEPT_LOGS = 10  # releases of an app whose logs stay
STATES: Mapping[int, ProcessState] = {
    supervisord.STOPPED: ProcessState.STOPPED,
    # It runs; supervisord only waits to see whether it stays (startsecs).
    supervisord.STARTING: ProcessState.RUNNING,
    supervisord.RUNNING: ProcessState.RUNNING,
    supervisord.BACKOFF: ProcessState.FAILED,
    supervisord.STOPPING: ProcessState.STOPPING,
    supervisord.EXITED: ProcessState.FAILED,
    supervisord.FATAL: ProcessState.FAILED,
}
ENDED = (supervisord.STOPPED, supervisord.EXITED, supervisord.FATAL)


class EmbeddedEngine(LogFiles):
    """See `Engine`. Needs root and a running `shipit-supervisord`; raises HostFault when that does not answer.

    Not `Warm`: there are no timers here, and nothing that stays up would end it. Not `Early`: nothing is slow about a
    start here, and a job's keeper dies with the agent by itself. Not `Adopts`: nothing here ends sessions.
    """

    name = NAME

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._supervisor = Supervisor(layout)

    def takes(self, release: Release) -> bool:
        # Namespaces for podman are what a machine without systemd, itself a container most often, does not give.
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
        """What supervisord knows once nothing of shipit's own is between its start and the second in which it must stay
        up: till then it may be well or in a loop."""
        deadline = time.monotonic() + SETTLES
        while True:
            known = self._supervisor.programs()
            starting = [name for name, info in known.items() if info["state"] == supervisord.STARTING]
            if not any(name.startswith("shipit-") for name in starting) or time.monotonic() > deadline:
                return known
            time.sleep(0.1)

    def _place_of_sockets(self) -> Service:
        """A container may seldom mount: what it has not got, whoever starts it can give it. That is no fault of today."""
        own = self._layout.run.is_mount()
        what = "the apps' sockets have a file system of their own"
        shared = (
            f"the apps' sockets share a file system with {self._layout.run.parent}, which an app can fill: SECURITY.md"
        )
        return Service(what if own else shared, True, "")

    def prepare(self, app: AppName) -> None:
        """The directory of the app's logs, which `shipit` may read and other apps may not."""
        with disk.opened_dir(self._layout.log) as logs:
            disk.make_dir(logs, app, 0o2750, 0, grp.getgrnam(SHIPIT_USER).gr_gid)

    def forget(self, app: AppName) -> None:
        for release in {name.release for name in self._known(app)}:
            self.stop(app, release, wait=False)
        # No drain for what is being destroyed. By user: also what had left its process group.
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
            # supervisord itself bounds this: SIGKILL after each program's drain.
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
                # Whoever asks for a restart does not wait for the pause after a crash (inside/launch.py).
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
        # It notifies (sd_notify(3)) and has not said READY=1 yet.
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
        """Forget what has no file and has stopped, and kill what of it had left its process group."""
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
    """What the launcher puts into the environment of this process and all it starts."""
    return [f"SHIPIT_APP={name.app}", f"SHIPIT_RELEASE=v{name.release}", f"SHIPIT_PROCESS={name.process}.{name.index}"]
