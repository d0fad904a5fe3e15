"""`cron*`: an app's scheduled process types."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import click

from receiver.cli import out
from receiver.cli.args import PROCESS, app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.cli.ps import held
from receiver.cli.run import end_with_reader
from receiver.engines import all as engines
from receiver.errors import Rejected
from receiver.inside.launch import GOES_ON
from receiver.ledger.ledger import Ledger
from receiver.model import Release
from receiver.names import AppName, TypeName
from receiver.root.oneoff import written


@click.command()
@app_argument
@json_option
@click.pass_obj
def list_cron(ctx: Context, app: AppName, form: str) -> None:
    """List what the live release runs by the clock: its times, the next one, and how the last run ended."""
    ledger = ledger_of(ctx, app)
    current, state = ledger.current(), ledger.state()
    timed = {one.process: one for one in engines.here(ctx.layout).timed(current)} if current else {}
    rows = []
    for process, schedule in current.scheduled if current else ():
        known = timed.get(process.type)
        suspended = process.type in state.suspended or state.stopped
        rows.append(
            {
                "process": process.type,
                "schedule": schedule.said,
                "state": "suspended" if suspended else "running" if known and known.running else "waiting",
                "next": known.next if known and not suspended else "",
                "last": known.last if known else "",
                "result": known.result if known else "",
                "command": process.command,
            }
        )
    if form == "json":
        out.show_json(rows)
        return
    headings = {name: name.upper() for name in ("process", "schedule", "state", "next", "last", "result", "command")}
    out.table(rows, headings, empty=f"{app} runs nothing by the clock.")


@click.command()
@app_argument
@click.argument("process", type=PROCESS)
@click.pass_obj
def run_now(ctx: Context, app: AppName, process: TypeName) -> int:
    """Run a scheduled process now, show what it prints, exit with its exit code. Not while a run of it goes on."""
    ledger, current, overlap = _scheduled(ctx, app, process)
    command, alone = current.process(process).command, "" if overlap else process
    with written(ledger.paths, command, alone) as run_id, ctx.connect_agent() as agent:
        sys.stdout.flush()
        end_with_reader(agent)
        code = agent.run(app, current.number, run_id, (0, 1, 2), tty=os.isatty(0) and os.isatty(1))
    if code == GOES_ON and not overlap:
        raise Rejected(f"{process} of {app} is under way already.", hint=f"shipit logs {app} -p {process} -t")
    return code


@click.command()
@app_argument
@click.argument("process", type=PROCESS)
@click.pass_obj
def suspend(ctx: Context, app: AppName, process: TypeName) -> None:
    """Stop running a scheduled process, over deploys and reboots too, until `cron:resume`. A run under way goes on."""
    _change(ctx, app, process, suspended=True)
    out.say(f"{process} of {app} does not run until: shipit cron:resume {app} {process}")


@click.command()
@app_argument
@click.argument("process", type=PROCESS)
@click.pass_obj
def resume(ctx: Context, app: AppName, process: TypeName) -> None:
    """Let a scheduled process run by the clock again. Runs missed meanwhile are not made up for."""
    _change(ctx, app, process, suspended=False)
    out.say(f"{process} of {app} runs by the clock again.")


def _change(ctx: Context, app: AppName, process: TypeName, *, suspended: bool) -> None:
    with held(ctx, app) as (agent, number):
        ledger, _, _ = _scheduled(ctx, app, process)
        state = ledger.state()
        names = {*state.suspended, process} if suspended else {*state.suspended} - {process}
        ledger.change_state(lambda state: replace(state, suspended=tuple(sorted(names))))
        if not state.stopped:
            agent.boot_with(app, number)


def _scheduled(ctx: Context, app: AppName, process: TypeName) -> tuple[Ledger, Release, bool]:
    """The live release, which has this scheduled type, and whether its runs may overlap; raises Rejected."""
    ledger = ledger_of(ctx, app)
    current = ledger.current()
    if current is None or not current.slug:
        raise Rejected(f"{app} has no release yet.", hint=f"Push one: git push HOST:{app} main")
    when = current.process(process).schedule
    if when is None:
        timed = ", ".join(one.type for one, _ in current.scheduled) or "nothing"
        raise Rejected(f"{process} of {app} does not run by the clock.", hint=f"By the clock run: {timed}")
    return ledger, current, when.overlap
