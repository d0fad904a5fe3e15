"""Where the time of one command goes: its milestones are programs that were started or have ended on the machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .figures import HOOK, SHIPIT
from .timeline import Timeline


@dataclass(frozen=True)
class Milestone:
    """The phase before it, and the program (all these words in its command line) whose start, or end, it is."""

    phase: str
    words: tuple[str, ...]
    end: bool = False


LOGIN = "ssh: connect, authenticate, open the session"
APP = (Milestone("launcher: config vars, shell", ("bin/gunicorn",)),)
SHIPIT_ONLY = (
    Milestone(LOGIN, ("bin/python", "libexec/gateway")),
    Milestone("gateway opens the release, systemd starts the app's unit", ("libexec/launch",)),
    *APP,
)
TAKEN = (
    Milestone(LOGIN, ("bin/python", "libexec/gateway")),
    Milestone("gateway: key, turn, repository", ("git receive-pack",)),
    Milestone("git takes the objects", ("hooks/pre-receive",)),
    Milestone("pre-receive: may this be deployed?", ("hooks/post-receive",)),
    Milestone("release opened, planned; what the agent still needs to be up", ("systemd-run",)),
    Milestone("systemd starts the builder's unit", ("libexec/builder",)),
)
BUILT = (
    Milestone("agent: units of the release; systemd starts the app's", ("libexec/launch",)),
    *APP,
)
MILESTONES = {
    (SHIPIT, "code"): (
        *TAKEN,
        Milestone("build: unpack, link the environment", ("libexec/builder",), end=True),
        *BUILT,
    ),
    (SHIPIT, "dependency"): (
        *TAKEN,
        Milestone("build: unpack, copy the last environment", ("uv pip install",)),
        Milestone("uv: what requirements.txt adds", ("uv pip install",), end=True),
        Milestone("build: modes, the cache's bound", ("libexec/builder",), end=True),
        *BUILT,
    ),
    (SHIPIT, "rollback"): SHIPIT_ONLY,
    (SHIPIT, "config"): SHIPIT_ONLY,
    (HOOK, "code"): (
        Milestone(LOGIN, ("git-receive-pack",)),
        Milestone("git takes the objects", ("hooks/post-receive",)),
        Milestone("git checkout", ("pip install",)),
        Milestone("pip install", ("pip install",), end=True),
        Milestone("systemctl restart: stop, start", ("bin/gunicorn",)),
    ),
    (HOOK, "config"): (
        Milestone(LOGIN, ("systemctl restart",)),
        Milestone("systemctl restart: stop, start", ("bin/gunicorn",)),
    ),
}
MILESTONES[HOOK, "rollback"] = MILESTONES[HOOK, "dependency"] = MILESTONES[HOOK, "code"]
LAST = "the app loads and answers"


def phases(who: str, what: str, timeline: Timeline, began: float, seen: float) -> list[tuple[str, float]]:
    """(phase, seconds) from the start of the command to the first right answer; what was not seen is left out."""
    found, at = [], began
    for milestone in MILESTONES[who, what]:
        moment = timeline.moment(milestone.words, after=began, end=milestone.end)
        if moment is not None:
            found.append((milestone.phase, moment - at))
            at = moment
    return [*found, (LAST, seen - at)]


def table(runs: Sequence[list[tuple[str, float]]]) -> str:
    """The median of each phase over several runs, in milliseconds and as a share of the whole."""
    names = list(dict.fromkeys(name for run in runs for name, _ in run))
    medians = {name: statistics.median([dict(run).get(name, 0.0) for run in runs]) for name in names}
    whole = sum(medians.values())
    rows = [f"| {name} | {took * 1000:.0f} | {took / whole:.0%} |" for name, took in medians.items()]
    return "\n".join(["| phase | ms | |", "| --- | --- | --- |", *rows, f"| **whole** | **{whole * 1000:.0f}** | |"])
