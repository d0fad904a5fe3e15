"""Each measure does one thing with one receiver and notes the numbers."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from receiver.story.aftercare import WATCHED
from receiver.system.listener import IDLE

from .breakdown import phases, table
from .figures import Figures
from .load import Load, Tally
from .machine import Outcome, Server
from .poller import Missing, Poller
from .receivers import Receiver, Shipit, host_name
from .sample import ADDED, GUNICORN, LARGE, PATIENT, REQUIREMENTS, Sample
from .timeline import Timeline

MAIN = "main-app"
SETTLE = 0.7
"""Seconds of quiet before each measure: old processes are gone by then, and nothing is measured twice."""
CALM = 20.0
"""Seconds of quiet after many apps were made."""
DRAIN = 30.0
"""Seconds that a replaced release may take for its requests, as shipit has it unless it is told."""


@dataclass
class Run:
    """One run's state with one receiver: its working copy of the main app, and where new ones go."""

    receiver: Receiver
    figures: Figures
    scratch: Path
    apps: int = 0
    added: Iterator[str] = field(default_factory=lambda: iter(ADDED))

    def __post_init__(self) -> None:
        self.main = self.sample()

    def sample(self, requirements: tuple[str, ...] = REQUIREMENTS, web: str = GUNICORN) -> Sample:
        self.apps += 1
        sample = Sample(self.receiver.client, self.scratch / f"app{self.apps}", requirements, web)
        sample.create()
        return sample

    def note(self, what: str, number: float) -> None:
        self.figures.add(what, self.receiver.name, number)

    def count(self, what: str) -> None:
        """One more of what should not be; the one number of the series."""
        series = self.figures.series.setdefault(what, {})
        series[self.receiver.name] = [sum(series.get(self.receiver.name, [])) + 1]

    def timed(self, what: str, app: str, marker: str, act: Callable[[], Outcome]) -> None:
        """From the start of the command to the first right answer; and to the command's own end."""
        time.sleep(SETTLE)
        with Poller(self.receiver.server.ip, host_name(app), marker) as poller:
            done = act().must()
            try:
                seen = poller.wait()
            except Missing as missing:
                self.missing(what, app, missing)
                return
        self.note(what, seen - done.began)
        self.note(f"{what}, whole", done.seconds)

    def missing(self, what: str, app: str, why: Missing) -> None:
        """An app that does not come back is counted, and brought back by hand; what comes after is measured all the
        same."""
        self.count("missing")
        self.figures.notes[f"missing, {self.receiver.name}, {what}"] = str(why)
        self.receiver.mend(app)

    # -- one round

    def start(self) -> None:
        """The main app goes live; not timed."""
        self.receiver.prepare(MAIN)
        self.receiver.push(self.main, MAIN).must()

    def first(self, what: str) -> None:
        app = f"fresh-{self.apps}"
        sample = self.sample()
        self.receiver.prepare(app)
        self.timed(what, app, sample.marker, lambda: self.receiver.push(sample, app))
        self.receiver.forget(app)

    def first_without_caches(self) -> None:
        self.receiver.forget_downloads()
        self.first("first, empty caches")

    def code(self, what: str = "code") -> None:
        marker = self.main.commit()
        self.timed(what, MAIN, marker, lambda: self.receiver.push(self.main, MAIN))

    def rollback(self, what: str = "rollback") -> None:
        """Comes after `code`, so the version before it is the one that was live."""
        marker = f"code={self.main.code - 1} "
        self.timed(what, MAIN, marker, lambda: self.receiver.roll_back(self.main, MAIN))

    def warm(self) -> None:
        """To a release that was kept warm; the hook has nothing like it."""
        if not isinstance(self.receiver, Shipit):
            return
        self.main.warm = 600
        for _ in range(2):
            self.main.commit()
            self.receiver.push(self.main, MAIN).must()
        self.rollback("warm")
        self.main.warm = 0
        self.main.commit()
        self.receiver.push(self.main, MAIN).must()

    def dependency(self) -> None:
        marker = self.main.add(next(self.added))
        self.timed("dependency", MAIN, marker, lambda: self.receiver.push(self.main, MAIN))

    def config(self, what: str = "config") -> None:
        greeting = f"hello{self.apps}x{time.monotonic_ns()}"
        self.timed(what, MAIN, f"config={greeting} ", lambda: self.receiver.configure(MAIN, greeting))

    def rested(self) -> None:
        """The first login in a while: nothing that an earlier one has started is up."""
        for step in (self.code, self.rollback, self.config):
            self.receiver.rest()
            step(f"{step.__name__}, rested")

    # -- where the time goes

    def trace(self, what: str, times: int) -> str:
        """`code`, `rollback`, `dependency` or `config` watched by the kernel: a table of its phases, and the last one's programs."""
        found: list[list[tuple[str, float]]] = []
        told = ""
        for _ in range(times):
            marker, act = self._step(what)
            time.sleep(SETTLE * 2)
            with (
                Timeline(self.receiver.server.group) as timeline,
                Poller(self.receiver.server.ip, host_name(MAIN), marker) as poller,
            ):
                done = act().must()
                try:
                    seen = poller.wait()
                except Missing as missing:
                    self.missing(what, MAIN, missing)
                    continue
            found.append(phases(self.receiver.name, what, timeline, done.began, seen))
            told = timeline.told(done.began)
        if not found:
            return "The new code never answered."
        title = "Every program of the last one: ms since the start, ms it ran"
        return f"{table(found)}\n\n<details><summary>{title}</summary>\n\n```\n{told}\n```\n</details>"

    def _step(self, what: str) -> tuple[str, Callable[[], Outcome]]:
        if what == "config":
            greeting = f"traced{time.monotonic_ns()}"
            return f"config={greeting} ", lambda: self.receiver.configure(MAIN, greeting)
        if what == "dependency":
            return self.main.add(next(self.added)), lambda: self.receiver.push(self.main, MAIN)
        self.main.commit()
        if what == "rollback":
            self.receiver.push(self.main, MAIN).must()
            self.main.commit()
            self.receiver.push(self.main, MAIN).must()
            return f"code={self.main.code - 1} ", lambda: self.receiver.roll_back(self.main, MAIN)
        return self.main.marker, lambda: self.receiver.push(self.main, MAIN)

    # -- what is lost

    def lost(self, what: str, keep: bool) -> Tally:
        """One code-only push under load, with half a second of load before and after it."""
        self.main.commit()
        load = Load(self.receiver.server.ip, host_name(MAIN), keep)
        with load:
            time.sleep(0.5)
            self.receiver.push(self.main, MAIN).must()
            time.sleep(0.5)
        self.note(f"lost, {what}", load.tally.lost)
        self.note(f"gap, {what}", load.tally.gap)
        return load.tally

    # -- disk

    def disk(self, releases: int) -> None:
        app = "large"
        sample = self.sample((*REQUIREMENTS, *LARGE))
        self.receiver.prepare(app)
        before = self.receiver.disk(app)
        self.receiver.push(sample, app).must()
        self.note("disk, one", (self.receiver.disk(app) - before) / 2**20)
        for _ in range(releases - 1):
            sample.commit()
            self.receiver.push(sample, app).must()
        time.sleep(2)
        self.note("disk, many", (self.receiver.disk(app) - before) / 2**20)
        self.receiver.forget(app)


COMMANDS = ("apps:list", f"releases {MAIN}", f"config:show {MAIN}")


def command_line(shipit: Shipit, figures: Figures, rounds: int) -> None:
    """`ssh true` as a plain user and a CLI command, in turn; noted is what the command takes longer."""
    server, client = shipit.server, shipit.client
    public = client.key.with_suffix(".pub").read_text()
    server.sh("useradd --create-home --shell /bin/bash plain && install -d -m 0700 -o plain -g plain ~plain/.ssh")
    server.write("/home/plain/.ssh/authorized_keys", public)
    for number in range(rounds):
        alone = client.ssh(f"plain@{server.ip}", "true").must().seconds
        said = client.ssh(shipit.account, COMMANDS[number % len(COMMANDS)]).must().seconds
        figures.add("ssh", shipit.name, alone * 1000)
        figures.add("cli", shipit.name, (said - alone) * 1000)


def memory(shipit: Shipit, figures: Figures) -> None:
    """Resident memory (MiB) of every process that is shipit's own and not an app's, once all is quiet.

    The worker of the last release drains the one before and watches for a while, and only then what it asks may end.
    What is still there after all of that stays.
    """
    deadline = time.monotonic() + DRAIN + WATCHED + IDLE + 15
    while (found := own_processes(shipit.server)) and time.monotonic() < deadline:
        time.sleep(1)
    figures.add("memory", shipit.name, sum(size for size, _ in found) / 1024)
    figures.notes["processes when idle"] = ", ".join(name for _, name in found) or "none"


def own_processes(server: Server) -> list[tuple[int, str]]:
    """(KiB resident, command line): of user shipit, or root's from /usr/lib/shipit. Apps run as app-APP."""
    listed = server.run("ps", "-eo", "rss=,user:32=,args=").out
    found = []
    for line in listed.splitlines():
        size, user, command = line.split(None, 2)
        if user == "shipit" or (re.search(r"/usr/lib/shipit|supervisord", command) and not user.startswith("app-")):
            found.append((int(size), f"{user}: {command}"))
    return found


def crowd(run: Run, apps: int) -> None:
    """So many other apps, each live; then until what that leaves to do is done: the disk's work, the journal's and
    systemd's."""
    sample = run.sample(web=PATIENT)
    for name in (f"crowd-{number}" for number in range(apps)):
        run.receiver.prepare(name)
        run.receiver.push(sample, name).must()
    os.sync()
    time.sleep(CALM)


def in_turn(runs: list[Run], number: int, step: Callable[[Run], None]) -> None:
    """A B, and next time B A: what drifts on the machine drifts for both."""
    for run in runs if number % 2 == 0 else reversed(runs):
        step(run)


def beside(runs: list[Run], rounds: int) -> None:
    """Each step on one machine while nothing runs on the others: whatever their apps do is no part of it."""

    def step_alone(step: Callable[[Run], None], measured: Run) -> None:
        with ExitStack() as stack:
            for other in runs:
                if other is not measured:
                    stack.enter_context(other.receiver.server.frozen())
            step(measured)
            time.sleep(SETTLE)

    for number in range(rounds):
        # Twice, because a rollback is to what came before it, and that must be code, too.
        for step in (Run.code, Run.code, Run.rollback, Run.config):
            in_turn(runs, number, partial(step_alone, step))
