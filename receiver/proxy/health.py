"""Whether a new process may take requests: checked over its own socket, before the switch."""

from __future__ import annotations

import pwd
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from receiver.errors import Unhealthy
from receiver.model import Check, CheckKind, Listen, ProcessType, Release
from receiver.paths import AppPaths, app_user
from receiver.proxy import endpoint, probe

# The pause between two tries is a twentieth of the wait so far, within these limits (s).
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.25
# The engine is asked less often: that costs more than asking the process, while the process needs the processor (s).
FIRST_LOOK, LOOK_EVERY = 0.4, 0.1
# After so long (s) we look where else the process listens, and say so.
PATIENCE = 4.0
# The time limit of one request (s): many apps load parts of themselves at their first request.
ANSWER = 10.0
# One try of a check: it takes the seconds that it may last, and a function to call while it waits; it returns "" or
# what was wrong.
_Question = Callable[[float, Callable[[], None]], str]


def wait_until_healthy(
    release: Release,
    process: ProcessType,
    index: int,
    paths: AppPaths,
    *,
    crashed: Callable[[], str | None],
    command: Callable[[], int],
    ready: Callable[[], int],
    say: Callable[[str], None],
    hopeless: Callable[[bool], str | None] = lambda failed: None,
    host: str = "localhost",
    scheme: str = "http",
    uid: int | None = None,
) -> int:
    """Return as soon as the process passes its healthcheck; raises Unhealthy at the check's timeout or a crash.

    Returns the status of the answer to an HTTP check, 0 for any other check.

    `crashed` says why the process can no longer become healthy, `command` runs the command healthcheck and returns its
    exit code, `ready` returns the pid (or True) while the engine says that the process runs, else 0. `hopeless` says why
    it is no use to wait for a process that runs; it gets True if the app itself gave the last answer, a bad one. They may
    block for a moment; any number of processes can be checked at once, each in its thread. `host` is the Host header of
    an HTTP check, `scheme` how visitors come to the app, `uid` the user who must own the socket or port (default: the
    app's).
    """
    check, name = process.check, f"{process.type}.{index}"
    uid = pwd.getpwnam(app_user(release.app)).pw_uid if uid is None and process.listen is not Listen.NONE else uid
    place = probe.Place(paths.release(release.runs_as).run_dir, name, process.listen, uid or 0)
    statuses = [0]
    ask = _question(check, place, host, scheme, command, ready, statuses.append)
    began = time.monotonic()
    asks = check.kind in (CheckKind.HTTP, CheckKind.TCP)
    with _looking_elsewhere(place, say) if asks else nullcontext():
        _wait(check, name, ask, lambda answer: crashed() or hopeless(place.failed(answer)))
    status = statuses[-1]
    answer = f": {check.path} answered {status}" if status else ""
    say(f"{name} is healthy{answer} ({time.monotonic() - began:.1f} s)")
    if port := place.open_to_all():
        say(
            f"{name} listens on every address: without a firewall port {port} is open around the proxy (bind 127.0.0.1)"
        )
    return status


@contextmanager
def _looking_elsewhere(place: probe.Place, say: Callable[[str], None]) -> Iterator[None]:
    """If the block still waits after a few seconds, say where the process listens instead of where it should."""
    before = probe.ports_of(place.uid)

    def look() -> None:
        if where := place.elsewhere(before):
            say(f"{where}. Have it listen there:")
            say("in the Procfile, `web: … --port $PORT` as your server calls it, or os.environ['PORT'] in its code")

    timer = threading.Timer(PATIENCE, look)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _wait(check: Check, name: str, ask: _Question, why_in_vain: Callable[[str], str | None]) -> None:
    """Ask until the answer is well. `why_in_vain` is asked now and then, with the last answer."""
    began = time.monotonic()
    deadline, look = began + check.timeout, began + FIRST_LOOK
    answer = "none yet"

    def glance() -> None:
        nonlocal look
        if (now := time.monotonic()) >= look or now >= deadline:
            look = now + LOOK_EVERY
            if why := why_in_vain(answer):
                raise Unhealthy(f"{name} did not become healthy: {why} (last answer: {answer}).")

    while True:
        answer = ask(min(ANSWER, max(0.05, deadline - time.monotonic())), glance)
        if not answer:
            return
        glance()
        now = time.monotonic()
        if now >= deadline:
            raise Unhealthy(f"{name} {_expectation(check)} within {check.timeout} s (last answer: {answer}).")
        time.sleep(min(max((now - began) / 20, SHORTEST_PAUSE), LONGEST_PAUSE, deadline - now))


def check_pages(slug: Path, static: str) -> None:
    """Raise Unhealthy if nginx could not serve the directory `static` of a slug."""
    if why := endpoint.unreadable(slug, static):
        raise Unhealthy(f"The proxy cannot serve {static}: {why}.")


def _question(
    check: Check,
    place: probe.Place,
    host: str,
    scheme: str,
    command: Callable[[], int],
    ready: Callable[[], int],
    answered: Callable[[int], None],
) -> _Question:
    if check.kind is CheckKind.HTTP:
        return lambda seconds, glance: place.http(
            host, check.path, check.status, check.content, seconds, answered, scheme, glance
        )
    if check.kind is CheckKind.TCP:
        return lambda seconds, _: place.accepts(seconds)
    if check.kind is CheckKind.COMMAND:
        return lambda *_: f"exit code {code}" if (code := command()) else ""
    if check.kind is CheckKind.NOTIFY:
        return lambda *_: "" if ready() else "still starting"
    return _Uptime(check.settle, ready)


def _expectation(check: Check) -> str:
    if check.kind is CheckKind.HTTP:
        wanted = f" {check.status}" if check.status else ""
        content = " with the wanted content" if check.content else ""
        return f"did not answer{wanted} on {check.path}{content}"
    return {
        CheckKind.TCP: "did not accept a connection",
        CheckKind.COMMAND: "did not pass its command healthcheck",
        CheckKind.NOTIFY: "did not report that it is ready (sd_notify)",
        CheckKind.UPTIME: f"did not stay up for {check.settle} s",
    }[check.kind]


class _Uptime:
    """The check by uptime: the same process has to run for `settle` seconds."""

    def __init__(self, settle: int, ready: Callable[[], int]) -> None:
        self._settle, self._ready = settle, ready
        self._pid, self._since = 0, 0.0

    def __call__(self, seconds: float, glance: Callable[[], None]) -> str:
        pid, now = int(self._ready()), time.monotonic()
        if not pid or pid != self._pid:
            self._pid, self._since = pid, now
        if not pid:
            return "not running"
        return "" if now - self._since >= self._settle else f"up for {now - self._since:.1f} s"
