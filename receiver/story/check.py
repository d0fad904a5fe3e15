"""Nothing goes live before every new process has proved itself."""

from __future__ import annotations

import threading
import time

from receiver.engines import all as engines
from receiver.engines.base import ProcessState, ProcessStatus
from receiver.errors import Unhealthy
from receiver.model import ProcessType, Release
from receiver.proxy import health
from receiver.proxy.vhost import domains
from receiver.story.context import AppContext

LAST_LINES = 30


def wait_until_healthy(context: AppContext, release: Release) -> None:
    """Wait for all processes of the formation at once; raises Unhealthy with the process's last log lines."""
    running = release.running()
    if not running or context.keeps_stopped(release):
        return
    context.say.step(f"Checking {', '.join(f'{p.type}.{i}' for p, i in running)}")
    watch = _Watch(context, release)
    failures: list[Exception] = []

    def check(process: ProcessType, index: int) -> None:
        try:
            _check(context, release, process, index, watch)
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that waits
            failures.append(error)

    # Not concurrent.futures, which takes as long to import as a check takes.
    threads = [threading.Thread(target=check, args=which) for which in running]
    with context.say.timed("check"):
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            watch.give_up()
            for thread in threads:
                thread.join()
            raise
    if failures:
        raise watch.culprit or failures[0]


def _check(context: AppContext, release: Release, process: ProcessType, index: int, watch: _Watch) -> None:
    try:
        health.wait_until_healthy(
            release, process, index, context.paths,
            crashed=lambda: watch.crashed(process, index),
            command=lambda: watch.command(process, index),
            ready=lambda: watch.pid(process, index),
            say=context.say.line, host=watch.host_header,
        )  # fmt: skip
    except Unhealthy as failure:
        if watch.culprit:
            raise
        last = engines.here(context.layout).last_lines(release, process.type, index, LAST_LINES)
        watch.culprit = Unhealthy(failure.message, hint=failure.hint, details=[*last, *failure.details])
        watch.give_up()
        raise watch.culprit from failure


class _Watch:
    """What the engine says of the processes, asked at most every 0.2 s for all of them together."""

    def __init__(self, context: AppContext, release: Release) -> None:
        self._context, self._release = context, release
        self._lock = threading.Lock()
        self._asked, self._known = 0.0, dict[tuple[str, int], ProcessStatus]()
        self._given_up = False
        # The first to fail; the others only stopped because of it.
        self.culprit: Unhealthy | None = None
        # An app that answers only to its own names (Django's ALLOWED_HOSTS) shall know this one.
        names = domains(release.app, context.ledger.state(), release, context.settings)
        self.host_header = names[0].replace("*.", "www.")

    def give_up(self) -> None:
        """One process failed: the others need not go on to their own timeout."""
        self._given_up = True

    def status(self, process: ProcessType, index: int) -> ProcessStatus | None:
        with self._lock:
            if time.monotonic() - self._asked > 0.2:
                found = self._context.agent.processes(self._release.app)
                self._known = {(s.process, s.index): s for s in found if s.release == self._release.runs_as}
                self._asked = time.monotonic()
            return self._known.get((process.type, index))

    def crashed(self, process: ProcessType, index: int) -> str | None:
        """Why the process can no longer become healthy, or None."""
        if self._given_up:
            return "another process failed its check"
        status = self.status(process, index)
        if status is None or status.state in (ProcessState.FAILED, ProcessState.STOPPED):
            return "it ended"
        return f"it ended and was restarted {status.restarts} times" if status.restarts >= 2 else None

    def pid(self, process: ProcessType, index: int) -> int:
        """The process's pid while the engine says that it runs, else 0."""
        status = self.status(process, index)
        return status.pid if status is not None and status.state is ProcessState.RUNNING else 0

    def command(self, process: ProcessType, index: int) -> int:
        with self._lock, self._context.say.output() as output:
            return self._context.agent.check_command(
                self._release.app, self._release.number, process.type, index, output
            )
