"""Programs that run once: a build, a release command, a check, a user's one-off command. systemd-run(1) starts them."""

from __future__ import annotations

import os
import signal

from receiver import settings
from receiver.engines.base import Job
from receiver.engines.systemd import bus, units
from receiver.engines.systemd.ctl import systemctl
from receiver.engines.systemd.shown import pairs
from receiver.errors import HostFault
from receiver.model import Limits
from receiver.paths import Layout
from receiver.system.run import CLEAN, start

ATTEMPTS = 3  # to start a job
TIMED_OUT, KILLED, STOPPED = 124, 128, 128 + signal.SIGTERM
# systemd's own exit codes for a program that it could not execute (systemd.exec(5), 200/CHDIR and up).
NEVER_STARTED = range(200, 256)


class Jobs:
    """The jobs of `Engine`. A running job ends with the agent's process that started it: its unit is bound to that
    one's."""

    _layout: Layout
    # The unit that holds only this process, once there is one.
    _own: str | None = None

    def expect_jobs(self) -> None:
        if self._own is None:
            scope = units.agent_scope(os.getpid())
            with bus.logged(), bus.connect() as systemd:
                systemd.start_transient(scope)
                self._own = scope.name

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

    def stop_job(self, name: str) -> None:
        systemctl("stop", units.job_unit(name), check=False)
        # If the agent that started it was killed, the unit is left as failed.
        systemctl("reset-failed", units.job_unit(name), check=False)

    def _was_lost(self, unit: str) -> bool:
        """Whether systemd never began this job, because it was re-executing itself when it was asked
        (daemon-reexec)."""
        return "not-found" in systemctl("show", "--property=LoadState", unit, check=False).out

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
        """The unit of this process; None if systemd could not make one. Jobs run without it, too."""
        self.expect_jobs()
        return self._own

    def _verdict(self, unit: str, code: int) -> int:
        """The exact exit code of a job that did not end with 0: systemd-run reports only the simple cases."""
        shown = systemctl("show", "--property=LoadState,Result,ExecMainCode,ExecMainStatus", unit).out
        known = dict(pairs(shown))
        systemctl("reset-failed", unit, check=False)
        status = int(known.get("ExecMainStatus") or 0)
        if known["LoadState"] == "not-found" and code != 1:
            # stop_job has removed the unit already; systemd-run reports any signal as 255.
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
