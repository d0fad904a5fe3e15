"""Nothing goes live before every new process has proved itself."""

from __future__ import annotations

import pwd
import threading
import time

from receiver.engines import all as engines
from receiver.engines.base import ProcessState, ProcessStatus
from receiver.errors import Unhealthy
from receiver.model import ProcessType, Release
from receiver.paths import app_user
from receiver.proxy import certificates, health
from receiver.proxy.endpoint import takes_requests
from receiver.proxy.probe import Place
from receiver.proxy.vhost import domains
from receiver.story import signs
from receiver.story.advice import advice
from receiver.story.context import AppContext

LAST_LINES = 30
# Python prints a chained exception below the one that caused it, with its whole traceback.
FOR_THE_CAUSE = 300
REFUSED, BAD_REQUEST = 400, 400
# How long the live release may take to answer the request that the new one is compared with (s).
PATIENCE = 5.0
# How long a process that ended once during its check must stay up (s).
STEADY = 5.0


def wait_until_healthy(context: AppContext, release: Release) -> None:
    """Wait for all processes of the formation at once; raises Unhealthy with the process's last log lines. If nginx
    serves files of the release itself, check that they are there."""
    running = release.running()
    if release.static:
        health.check_pages(context.paths.release(release.slug).slug, release.static)
        context.say.line(f"{release.static} has its pages, and the proxy can read them")
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
    _watch_the_unsteady(context, release, watch)


def _check(context: AppContext, release: Release, process: ProcessType, index: int, watch: _Watch) -> None:
    try:
        status = health.wait_until_healthy(
            release, process, index, context.paths,
            crashed=lambda: watch.crashed(process, index),
            command=lambda: watch.command(process, index),
            ready=lambda: watch.pid(process, index),
            hopeless=lambda failed: watch.hopeless(process, index, failed),
            say=context.say.line, host=watch.host_header, scheme=watch.scheme,
        )  # fmt: skip
    except Unhealthy as failure:
        if watch.culprit:
            raise
        watch.culprit = _explained(context, release, process, index, failure)
        watch.give_up()
        raise watch.culprit from failure
    if status >= REFUSED and not process.check.status:
        _warn(context, release, process, index, status, watch.host_header)


def _explained(
    context: AppContext, release: Release, process: ProcessType, index: int, failure: Unhealthy
) -> Unhealthy:
    """`failure` with the process's last output, and advice on it."""
    said = engines.here(context.layout).last_lines(release, process.type, index, FOR_THE_CAUSE)
    given = {place for _, place in context.ledger.release(release.number).storage}
    hint = failure.hint or advice(release.app, said, given=given)
    explained = Unhealthy(failure.message, hint=hint, details=[*said[-LAST_LINES:], *failure.details])
    explained.seen = said
    return explained


def _warn(context: AppContext, release: Release, process: ProcessType, index: int, status: int, host: str) -> None:
    """Warn that visitors get an error status, unless the live release answers no better."""
    check, live = process.check, context.ledger.current()
    before = [0]
    if live is not None and takes_requests(live):
        uid = pwd.getpwnam(app_user(release.app)).pw_uid
        listens = next((p.listen for p in live.processes if p.type == process.type), process.listen)
        place = Place(context.paths.release(live.runs_as).run_dir, f"{process.type}.1", listens, uid)
        place.http(host, check.path, 0, "", PATIENCE, before.append)
        if before[-1] // 100 >= status // 100:
            return
    better = f"; {live.name} answers {before[-1]}" if live is not None and before[-1] else ""
    context.say.warn(f"{process.type}.{index} answers {status} to GET {check.path} at {host}{better}.")
    last = engines.here(context.layout).last_lines(release, process.type, index, LAST_LINES)
    hint = advice(release.app, last, host)
    if status == BAD_REQUEST and not hint:
        hint = f"Frameworks answer so to a name that they do not know: Django wants {host} in ALLOWED_HOSTS."
    if hint:
        context.say.warn(f"({hint})")
    check_line = f"processes: {{{process.type}: {{healthcheck: {{path: {check.path}, status: 200}}}}}}"
    context.say.warn(f"(To have such a release refused, in shipit.yml: {check_line})")


def _watch_the_unsteady(context: AppContext, release: Release, watch: _Watch) -> None:
    """Watch the processes that ended once during their check a little longer; raises Unhealthy if one ends again."""
    unsteady = [] if release.took_over else [which for which in release.running() if watch.has_ended(*which)]
    if not unsteady:
        return
    names = ", ".join(f"{process.type}.{index}" for process, index in unsteady)
    context.say.line(f"Watching {names} for {STEADY:g} s: it ended and was started again")
    deadline = time.monotonic() + STEADY
    while time.monotonic() < deadline:
        time.sleep(0.25)
        for process, index in unsteady:
            if why := watch.crashed(process, index):
                told = Unhealthy(f"{process.type}.{index} does not stay up: {why}.")
                raise _explained(context, release, process, index, told)


class _Watch:
    """What the engine says of the processes; it is asked at most every 0.2 s, once for all processes."""

    def __init__(self, context: AppContext, release: Release) -> None:
        self._context, self._release = context, release
        self._lock = threading.Lock()
        self._asked, self._known = 0.0, dict[tuple[str, int], ProcessStatus]()
        self._given_up = False
        # The failure of the first process; the other checks stopped only because of it.
        self.culprit: Unhealthy | None = None
        self._signs = dict[tuple[str, int], signs.Signs]()
        # The check uses this name: some apps answer only to their own names (Django's ALLOWED_HOSTS).
        names = domains(release.app, context.ledger.state(), release, context.settings)
        self.host_header = names[0].replace("*.", "www.")
        # Some apps redirect plain HTTP to HTTPS: the check says that the request came by HTTPS.
        secure = certificates.secure(context.paths, context.ledger.state(), release, names[:1], context.settings)
        self.scheme = "https" if secure.servers else "http"

    def give_up(self) -> None:
        """One process failed: end the checks of the others, too."""
        self._given_up = True

    def status(self, process: ProcessType, index: int) -> ProcessStatus | None:
        with self._lock:
            if time.monotonic() - self._asked > 0.2:
                found = self._context.agent.processes(self._release.app)
                self._known = {(s.process, s.index): s for s in found if s.release == self._release.runs_as}
                self._asked = time.monotonic()
            return self._known.get((process.type, index))

    def has_ended(self, process: ProcessType, index: int) -> bool:
        """Whether the process was started more than once, as of the last answer of the engine."""
        known = self._known.get((process.type, index))
        return known is not None and known.restarts > 0

    def crashed(self, process: ProcessType, index: int) -> str | None:
        """Why the process can no longer become healthy, or None."""
        if self._given_up:
            return "another process failed its check"
        status = self.status(process, index)
        if status is None or status.state in (ProcessState.FAILED, ProcessState.STOPPED):
            return "it ended"
        return f"it ended and was restarted {status.restarts} times" if status.restarts >= 2 else None

    def hopeless(self, process: ProcessType, index: int, failed: bool) -> str | None:
        """Why the process, which lives, can no longer become healthy, or None. `failed`: it has answered, and badly."""
        if (process.type, index) not in self._signs:
            engine, release = engines.here(self._context.layout), self._release
            lines = lambda: engine.last_lines(release, process.type, index, FOR_THE_CAUSE)  # noqa: E731
            self._signs[process.type, index] = signs.Signs(lines)
        return self._signs[process.type, index].told(self.pid(process, index), failed)

    def pid(self, process: ProcessType, index: int) -> int:
        """The process's pid while the engine says that it runs, else 0."""
        status = self.status(process, index)
        return status.pid if status is not None and status.state is ProcessState.RUNNING else 0

    def command(self, process: ProcessType, index: int) -> int:
        with self._lock, self._context.say.output() as output:
            return self._context.agent.check_command(
                self._release.app, self._release.number, process.type, index, output
            )
