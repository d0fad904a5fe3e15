"""`resource*`: what the processes of an app may take, and what they take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import click

from receiver.cli import out
from receiver.cli.args import PROCESS, app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.cli.ps import submit_with
from receiver.engines import all as engines
from receiver.engines.base import ProcessStatus
from receiver.errors import Rejected
from receiver.model import Change
from receiver.names import AppName, TypeName
from receiver.ops import limits
from receiver.story.submit import Submission


@click.command()
@app_argument
@click.option("-p", "--process-type", "kind", type=PROCESS, help="Only for this process type (default: for all).")
@click.option("--memory", help="The most memory of one process: 512M, 2G, none.")
@click.option("--cpu", help="The most CPU time of one process: 150% is one core and a half; none.")
@click.option("--tasks", help="The most threads and processes of one process: 64; none.")
@click.pass_obj
def limit(
    ctx: Context, app: AppName, kind: TypeName | None, memory: str | None, cpu: str | None, tasks: str | None
) -> int:
    """Set what one process may take; it goes live as a new release, and holds for later ones, too.

    \b
    Examples:
      shipit resource:limit blog --memory 1G
      shipit resource:limit blog -p worker --memory 512M --cpu 50%
    """
    given = {"memory": memory, "cpu": cpu, "tasks": tasks}
    wish = {what: limits.parse(what, text) for what, text in given.items() if text is not None}
    if not wish:
        raise Rejected(
            "Nothing to set.", hint=f"shipit resource:limit {app} --memory 512M\nSee: shipit resource:report {app}"
        )
    ledger = ledger_of(ctx, app)
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        current = ledger.current()
        if current is None or not current.slug:
            if kind is None:
                raise Rejected(
                    f"{app} has no process types yet.",
                    hint=f"Name one: -p web\nor push first: git push HOST:{app} main",
                )
            new = limits.merged(ledger.state().limits, [kind], wish)
            ledger.change_state(lambda state: replace(state, limits=new))
            out.say(f"Kept for the first push of {app}: {' '.join(f'{name}={value}' for name, value in new)}")
            return 0
        kinds = [current.process(kind).type] if kind else [process.type for process in current.processes]
        new = limits.merged(ledger.state().limits, kinds, wish)
        processes = limits.limited(current.processes, new)
        if processes == current.processes:
            ledger.change_state(lambda state: replace(state, limits=new))
            out.say("Nothing changes: those limits hold already.")
            return 0
        told = " ".join(f"{what}={limits.shown(what, value)}" for what, value in wish.items())
        values = {"processes": processes, "message": f"limit {kind or 'all'} {told}"}
        return submit_with(submission, lambda state: replace(state, limits=new), Change.SCALE, current, values)


@click.command()
@app_argument
@json_option
@click.pass_obj
def report(ctx: Context, app: AppName, form: str) -> None:
    """Show what the processes may take, each and all together, beside what they take now."""
    ledger = ledger_of(ctx, app)
    current = ledger.current()
    with ctx.connect_agent() as agent:
        running = agent.processes(app)
    rows = []
    for process in current.processes if current else ():
        mine = [one for one in running if current and one.release == current.runs_as and one.process == process.type]
        known = limits.of(process.limits)
        rows.append(
            {
                "process": process.type,
                "count": len(mine),
                "memory": f"{max([0, *(one.memory for one in mine)]) / 2**20:.0f}M of {_most('memory', known)}",
                "cpu": f"{share(mine, time.time())}of {_most('cpu', known)}",
                "tasks": f"{max([0, *(one.tasks for one in mine)])} of {_most('tasks', known)}",
            }
        )
    usage = engines.here(ctx.layout).usage(app)
    if usage:
        rows.append(
            {
                "process": "all together",
                "count": len(running),
                "memory": f"{usage.memory / 2**20:.0f}M of {f'{usage.most_memory / 2**20:.0f}M' if usage.most_memory else limits.NONE}",
                "cpu": f"{usage.cpu:.1f} s so far",
                "tasks": f"{usage.tasks} of {usage.most_tasks or limits.NONE}",
            }
        )
    if form == "json":
        out.show_json(rows)
        return
    headings = {name: name.upper() for name in ("process", "count", "memory", "cpu", "tasks")}
    out.table(rows, headings, empty=f"{app} has no release yet.")


def share(processes: Sequence[ProcessStatus], now: float) -> str:
    """The average use of a core by the busiest process since it started; "" if it is not measured."""
    shares = [100 * one.cpu / max(now - one.since, 1.0) for one in processes if one.cpu and one.since]
    return f"{max(shares):.0f}% " if shares else ""


def _most(what: str, known: dict[str, int]) -> str:
    """The limit of one process; without one, the app's limit holds."""
    return limits.shown(what, known[what]) if known[what] else "the app's"
