"""`python -m benchmarks`: boot the machines, measure in turn, write the table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.lab import snapshot
from tests.lab.base import REPO
from tests.lab.tree import SUITE

from . import measures
from .figures import ALONE, AMONG, AMONG_OTHERS, HOOK, Figures, table
from .machine import Client
from .measures import Run, in_turn
from .receivers import BashHook, Shipit

HERE = Path(__file__).parent
OTHERS = "other apps"


def main() -> int:
    words = argparse.ArgumentParser(prog="benchmarks/run", description="Measure shipit against a bash hook.")
    words.add_argument("--rounds", type=int, default=10, help="how often each thing is timed (default: 10)")
    words.add_argument("--pushes", type=int, default=50, help="pushes under each kind of load (default: 50)")
    words.add_argument("--apps", type=int, default=0, help="measure alone and among so many other apps that run, too")
    words.add_argument("--serving", action="store_true", help="requests/s against a vhost by hand, too; needs wrk")
    words.add_argument("--only", choices=("hook", "shipit"), help="leave the other out; no ratios then")
    words.add_argument("--output", type=Path, default=HERE, help="where results.md and results.json go")
    chosen = words.parse_args()

    figures = Figures()
    began = time.strftime("%Y-%m-%d %H:%M")
    facts = {
        **machine(),
        **({OTHERS: str(chosen.apps)} if chosen.apps else {}),
        "date": began,
        "load before": f"{os.getloadavg()[0]:.1f}",
    }

    served: list[str] = []

    def save() -> None:
        write(chosen.output, figures, {**facts, "load after": f"{os.getloadavg()[0]:.1f}"}, *served)

    with tempfile.TemporaryDirectory() as scratch:
        client = Client(snapshot.admin_key(), Path(scratch))
        runs: list[Run] = []
        try:
            if chosen.only != "shipit":
                say("booting and preparing the hook's machine")
                runs.append(Run(BashHook.install(client), figures, Path(scratch) / "hook"))
            if chosen.only != "hook":
                say("booting shipit's machine and installing")
                runs.append(Run(Shipit.install(client), figures, Path(scratch) / "shipit"))
            measure(runs, figures, chosen.rounds, chosen.pushes, save)
        finally:
            close(runs)
        if chosen.apps and chosen.only != "hook":
            measure_among(chosen.apps, figures, Path(scratch) / AMONG, chosen.rounds)
            save()
        if chosen.serving and chosen.only != "hook":
            # It needs this module.
            from . import serving

            say("serving")
            found = serving.measure(list(serving.APPS), chosen.rounds)
            served.append(f"## Serving\n{serving.ABOUT}\n\n{serving.table(found)}")
            save()
    print(table(figures))
    return 0


def measure(runs: list[Run], figures: Figures, rounds: int, pushes: int, save: Callable[[], None]) -> None:
    """All of it, saved after each part: what was measured is not lost with what comes after it."""
    for run in runs:
        run.start()
    steps: list[Callable[[Run], None]] = [
        Run.first_without_caches,
        lambda run: run.first("first"),
        Run.code,
        Run.rollback,
        Run.warm,
        Run.dependency,
        Run.config,
    ]
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for step in steps:
            in_turn(runs, number, step)
        save()
    for number in range((rounds + 1) // 2):
        say(f"the first login in a while, {number + 1}")
        in_turn(runs, number, Run.rested)
        # Else the next rollback is to what this one came from.
        in_turn(runs, number, Run.code)
        save()
    say("disk")
    in_turn(runs, 0, lambda run: run.disk(5))
    save()
    for run in runs:
        if isinstance(run.receiver, Shipit):
            say("the command line")
            measures.command_line(run.receiver, figures, rounds * 3)
            say("memory")
            measures.memory(run.receiver, figures)
    for what in ("code", "dependency", "rollback", "config"):
        say(f"where the time goes: {what}")
        for run in runs:
            figures.traces[f"{what}, {run.receiver.name}"] = run.trace(what, 3)
        save()
    for what, keep in (("keep-alive", True), ("close", False)):
        say(f"{pushes} pushes under load, {what}")
        for number in range(pushes):
            # The hook's losses vary little; shipit's promise of none needs the number.
            chosen = [run for run in runs if run.receiver.name != HOOK or number < 10]
            in_turn(chosen, number, partial(under_load, figures=figures, what=what, keep=keep))
        save()


def measure_among(apps: int, figures: Figures, scratch: Path, rounds: int) -> None:
    """Two more machines, and so many other apps on one of them."""
    scratch.mkdir()
    # Knows no machine yet: they may get the addresses of those before.
    client = Client(snapshot.admin_key(), scratch)
    runs: list[Run] = []
    try:
        for who in (ALONE, AMONG):
            say(f"booting a machine more: {who}")
            runs.append(Run(Shipit.install(client, who), figures, scratch / who))
            runs[-1].start()
        say(f"{apps} other apps")
        measures.crowd(runs[1], apps)
        measures.beside(runs, rounds)
    finally:
        close(runs)


def close(runs: list[Run]) -> None:
    for run in runs:
        run.receiver.server.close()


def under_load(run: Run, figures: Figures, what: str, keep: bool) -> None:
    tally = run.lost(what, keep)
    figures.add(f"requests, {what}", run.receiver.name, tally.requests)
    if tally.reasons:
        figures.notes[f"lost by {run.receiver.name}, {what}, last"] = json.dumps(tally.reasons)


def machine() -> dict[str, str]:
    """What was measured on, and with what."""
    commit = subprocess.run(
        ["git", "-C", REPO, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 2**20
    return {
        "machine": f"{os.cpu_count()} cores, {processor[0].split(':')[1].strip()}, {memory} GiB, Linux {platform.release()}",
        "hosts": f"Debian {SUITE}, booted in systemd-nspawn, each with its own address and its own ext4 (journal, fsync waits)",
        "shipit": commit.stdout.strip(),
    }


def write(where: Path, figures: Figures, facts: dict[str, str], *served: str) -> None:
    where.mkdir(parents=True, exist_ok=True)
    whole = {"facts": facts, **asdict(figures)}
    (where / "results.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    among = f"\n\nAmong {facts.get(OTHERS)} other apps that run:\n\n{table(figures, AMONG_OTHERS, ALONE, AMONG)}"
    behind = "".join(f"\n\n{text}" for text in served)
    told = "\n".join(f"- {name}: {value}" for name, value in {**facts, **figures.notes}.items())
    (where / "results.md").write_text(
        "# Results\nWritten by `benchmarks/run`; how it measures: README.md. Medians, in brackets the smallest and the"
        f" largest.\n\n{table(figures)}{among if figures.of('code', AMONG) else ''}{behind}\n\n{told}\n\n# Where the time goes\n"
        + "\n\n".join(f"## {name}\n{text}" for name, text in figures.traces.items())
        + "\n"
    )


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
