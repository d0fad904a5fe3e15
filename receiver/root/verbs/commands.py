"""The verbs that run one command of an app: before a release goes live, as its check, or on request."""

from __future__ import annotations

from collections.abc import Sequence

from receiver import settings
from receiver.engines.all import Engines
from receiver.engines.base import job_name
from receiver.errors import Rejected
from receiver.model import CheckKind, Release
from receiver.root.verbs.base import Answer, Desk
from receiver.wire import Request


class Commands(Desk):
    """Commands that run as the app's user, in a release."""

    def do_release_command(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        timeout = settings.load(self.layout.settings).release_command_timeout
        job = self._job(job_name("release", release.app, release.number), release, ["--release"], [], timeout)
        return {"code": self._run(job, None, fds[0])}

    def do_check_command(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        process = release.process(request.process)
        if process.check.kind is not CheckKind.COMMAND or request.index > release.count(process.type):
            raise Rejected(f"{process.type}.{request.index} of {release.name} has no command healthcheck.")
        words = [process.type, str(request.index)]
        job = self._job(check_name(release, *words), release, ["--check"], words, process.check.timeout)
        return {"code": self._run(job, None, fds[0])}

    def do_run(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        name = job_name("run", release.app, release.number, request.run)
        job = self._job(name, release, [f"--run={request.run}"], [], 0)
        with self.watch(job.name):
            return {"code": self.engines.run_job(job, fds[0], fds[1], fds[2], tty=request.tty)}

    def do_cancel(self, request: Request, fds: Sequence[int]) -> Answer:
        stop_jobs(self.engines, self._release(request))
        return {}


def check_name(release: Release, kind: str, index: str) -> str:
    return job_name("check", release.app, release.number, kind, index)


def stop_jobs(engines: Engines, release: Release) -> None:
    """Stop a build, release command or check of the release, whichever runs."""
    checks = [
        check_name(release, process.type, str(index))
        for process, index in release.running()
        if process.check.kind is CheckKind.COMMAND
    ]
    for name in (
        job_name("build", release.app, release.number),
        job_name("release", release.app, release.number),
        *checks,
    ):
        engines.stop_job(name)
