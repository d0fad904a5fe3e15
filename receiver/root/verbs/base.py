"""What all verbs of the agent use: the app, its ledger and its releases by typed fields, and the app's jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from receiver.engines.all import Engines
from receiver.engines.base import Job
from receiver.errors import NotFound
from receiver.ledger.ledger import Ledger
from receiver.model import Release
from receiver.names import AppName
from receiver.paths import LAUNCH, PYTHON, AppPaths, Layout, app_user
from receiver.wire import Request

Answer = dict[str, Any]
# A context around a job; stops the job if the client hangs up.
Watch = Callable[[str], AbstractContextManager[None]]


class Desk:
    """What the verbs of one connection share."""

    def __init__(self, layout: Layout, engines: Engines, watch: Watch) -> None:
        self.layout, self.engines, self.watch = layout, engines, watch
        # What to do after the answer was sent.
        self._then: Callable[[], None] | None = None
        self._logins: dict[AppName, Mapping[str, str]] = {}

    def _app(self, app: AppName) -> AppPaths:
        paths = self.layout.app(app)
        if not paths.config.is_dir():
            raise NotFound(f"There is no app {app!r}.", hint="List the apps: shipit apps")
        return paths

    def _ledger(self, app: AppName) -> Ledger:
        return Ledger(self._app(app))

    def _release(self, request: Request) -> Release:
        """The release for a verb that only stops or removes it; a newer shipit may have written the record."""
        return self._ledger(request.app).release(request.release)

    def _known(self, request: Request) -> Release:
        """The release for a verb that starts or builds it: raises Newer unless the whole record is understood."""
        release = self._release(request)
        release.must_be_known()
        return release

    def _job(self, name: str, release: Release, flags: list[str], words: list[str], timeout: int) -> Job:
        """A command of the app in a release, with its user, its data and its config vars."""
        paths = self._app(release.app)
        return Job(
            name=name, app=release.app, user=app_user(release.app),
            argv=(str(PYTHON), "-IS", str(LAUNCH), *flags, release.app, str(release.runs_as), *words),
            cwd=paths.data, writable=(paths.data, paths.sockets), timeout=timeout,
            config=paths.release(release.runs_as).config, release=release,
        )  # fmt: skip

    def _run(self, job: Job, stdin: int | None, output: int) -> int:
        with self.watch(job.name):
            return self.engines.run_job(job, stdin, output, output)
