"""`ps*`: the processes of an app."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import click

from receiver.cli import out
from receiver.cli.args import PROCESS, app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.engines.base import keeps_ending
from receiver.errors import Failure, Rejected
from receiver.here import typed
from receiver.ledger.queue import queued
from receiver.model import AppState, Change, Release
from receiver.names import AppName, TypeName, type_name
from receiver.root.client import Agent
from receiver.story.submit import Submission, scaled, tell
from receiver.story.visitors import refuse_to_drop_web
from receiver.system import disk

MAX_COUNT = 100


@click.command()
@app_argument
@json_option
@click.pass_obj
def processes(ctx: Context, app: AppName, form: str) -> None:
    """List the processes that run, those of a draining release included."""
    current = ledger_of(ctx, app).current()
    with ctx.connect_agent() as agent:
        found = agent.processes(app)
    # A release that took over another one's processes has none under its own number.
    live = {current.runs_as: current.number} if current else {}
    most = {process.type: process.limits.memory for process in current.processes} if current else {}
    found = [replace(p, release=live.get(p.release, p.release)) for p in found]
    rows = [
        {
            "process": f"{p.process}.{p.index}",
            "release": f"v{p.release}",
            "state": "restarting" if keeps_ending(p, time.time()) else p.state.value,
            "since": out.age(p.since) if p.since else "",
            "restarts": p.restarts,
            "memory": memory(p.memory, most.get(p.process, 0)),
            "pid": p.pid or "",
        }
        for p in sorted(found, key=lambda p: (-p.release, p.process, p.index))
    ]
    if form == "json":
        out.show_json(rows)
    else:
        headings = {
            name: name.upper() for name in ("process", "release", "state", "since", "restarts", "memory", "pid")
        }
        out.table(rows, headings, empty=f"{app} has no processes running.")


def memory(used: int, most: int) -> str:
    """The memory that a process uses (bytes), and its own limit (MiB), if it has one."""
    return f"{used / 2**20:.0f}{f' of {most}' if most else ''} MiB" if used else ""


@click.command()
@app_argument
@click.argument("counts", nargs=-1, metavar="[TYPE=COUNT]...")
@click.option("--force", is_flag=True, help="Also take away the last process that takes requests.")
@json_option
@click.pass_obj
def scale(ctx: Context, app: AppName, counts: tuple[str, ...], force: bool, form: str) -> int:
    """Show or set how many processes of each type run; a change goes live as a new release.

    \b
    Examples:
      shipit ps:scale blog
      shipit ps:scale blog web=3 worker=1
    """
    ledger = ledger_of(ctx, app)
    if not counts:
        current = ledger.current()
        rows = [{"process": kind, "count": count} for kind, count in (current.formation if current else ())]
        if form == "json":
            out.show_json(rows)
        else:
            out.table(rows, {"process": "PROCESS", "count": "COUNT"}, empty=f"{app} has no release yet.")
        return 0
    wish = dict(parse_count(text) for text in counts)
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        current = ledger.current()
        if current is None or not current.slug:
            new = tuple(sorted({**dict(ledger.state().formation), **wish}.items()))
            ledger.change_state(lambda state: replace(state, formation=new))
            out.say(f"Kept for the first push of {app}: {' '.join(f'{kind}={count}' for kind, count in new)}")
            return 0
        for kind in wish:
            if current.process(kind).schedule:
                raise Rejected(
                    f"{kind} of {app} runs by the clock; it has no count.",
                    hint=f"Run it now: shipit cron:run {app} {kind}\nKeep it from running: shipit cron:suspend {app} {kind}",
                )
        formation = scaled(current.formation, wish)
        if formation == current.formation:
            out.say("Nothing changes: that many run already.")
            return 0
        if not force:
            words = " ".join(f"{kind}={count}" for kind, count in wish.items())
            how = (
                f"If this is intended: shipit ps:scale {app} {words} --force\n"
                f"Until it is started again: shipit ps:stop {app}"
            )
            refuse_to_drop_web(current, ledger.state(), current.processes, dict(formation), how, static=current.static)
        new = tuple(sorted({**dict(ledger.state().formation), **wish}.items()))
        what = "scale " + " ".join(f"{kind}={count}" for kind, count in wish.items())
        values = {"formation": formation, "message": what}
        return submit_with(submission, lambda state: replace(state, formation=new), Change.SCALE, current, values)


def parse_count(text: str) -> tuple[TypeName, int]:
    """`web=3` as (web, 3); raises Rejected."""
    name, equals, count = text.partition("=")
    if not equals or not count.isascii() or not count.isdigit() or int(count) > MAX_COUNT:
        raise Rejected(
            f"{text[:40]!a} is not TYPE=COUNT with a count of 0–{MAX_COUNT}.", hint="shipit ps:scale APP web=2"
        )
    return type_name(name), int(count)


@click.command()
@app_argument
@click.argument("process", type=PROCESS, required=False)
@click.pass_obj
def restart(ctx: Context, app: AppName, process: TypeName | None) -> int:
    """Restart an app without losing a request (as a new release), or one process type in place.

    \b
    Examples:
      shipit ps:restart blog
      shipit ps:restart blog worker
    """
    if process is None:
        return restarted(ctx, app)
    ledger = ledger_of(ctx, app)
    with held(ctx, app) as (agent, number):
        release = ledger.release(number)
        if release.process(process).schedule:
            raise Rejected(
                f"{process} of {app} runs by the clock.", hint=f"Run it now: shipit cron:run {app} {process}"
            )
        if ledger.state().stopped:
            raise Rejected(f"{app} is stopped.", holds="Nothing was started.", hint=f"Start it: shipit ps:start {app}")
        if not release.count(process):
            raise Rejected(
                f"No {process} of {app} runs: it is scaled to 0.",
                holds="Nothing was started.",
                hint=f"Start one: shipit ps:scale {app} {process}=1",
            )
        agent.restart(app, number, process)
    out.say(f"Restarted {process} of {app}.")
    return 0


def restarted(ctx: Context, app: AppName) -> int:
    """Restart the app as a new release and follow it to its end; returns the exit code."""
    ledger = ledger_of(ctx, app)
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        current = submission.current()
        if ledger.state().stopped:
            raise Rejected(f"{app} is stopped.", holds="Nothing was started.", hint=f"Start it: shipit ps:start {app}")
        return submission.submit(Change.RESTART, current, message="restart")


@click.command()
@app_argument
@click.pass_obj
def stop(ctx: Context, app: AppName) -> None:
    """Stop an app; it stays stopped, over reboots too, until `ps:start` or the next push."""
    with held(ctx, app) as (agent, number):
        ledger_of(ctx, app).change_state(lambda state: replace(state, stopped=True))
        agent.boot_with(app, 0)
        agent.cool(app)
        agent.stop(app, number, wait=True)
        agent.proxy(app)
    out.say(typed(f"Stopped {app}. Visitors see that it is stopped. Start it again: shipit ps:start {app}"))


@click.command()
@app_argument
@click.pass_obj
def start(ctx: Context, app: AppName) -> int:
    """Start a stopped app; its processes are checked like those of a release."""
    ledger = ledger_of(ctx, app)
    if not ledger.state().stopped:
        out.say(f"{app} is not stopped.")
        return 0
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        current, values = submission.current(), {"message": "start"}
        return submit_with(submission, lambda state: replace(state, stopped=False), Change.RESTART, current, values)


def submit_with(
    submission: Submission,
    change: Callable[[AppState], AppState],
    what: Change,
    base: Release | None,
    values: Mapping[str, Any],
) -> int:
    """Submit a release together with a change of the app's state, which is undone if the release does not go live.

    If the client leaves half way, nothing is undone: the worker goes on, and the release goes live.
    """
    ledger = submission.ledger
    before = ledger.state()
    ledger.change_state(change)

    def take_back() -> None:
        ledger.change_state(
            lambda state: replace(
                state,
                formation=before.formation,
                limits=before.limits,
                stopped=before.stopped,
                storage=before.storage,
            )
        )

    try:
        code = submission.submit(what, base, **values)
    except Failure:
        take_back()
        raise
    if code:
        take_back()
    return code


class held:
    """The app's locks and the agent, for a command that changes processes without making a release."""

    def __init__(self, ctx: Context, app: AppName) -> None:
        self.ctx, self.ledger = ctx, ledger_of(ctx, app)

    def __enter__(self) -> tuple[Agent, int]:
        from contextlib import ExitStack

        number = self.ledger.current_number()
        if not number:
            raise Rejected(
                f"{self.ledger.app} has no release yet.", hint=f"Push one: git push HOST:{self.ledger.app} main"
            )
        with ExitStack() as stack:
            stack.enter_context(queued(self.ledger, self.ctx.caller.name, push=False, say=tell))
            stack.enter_context(disk.locked(self.ledger.paths.app_lock, wait=True))
            agent = stack.enter_context(self.ctx.connect_agent())
            self._stack = stack.pop_all()
        sys.stdout.flush()
        return agent, number

    def __exit__(self, *error: object) -> None:
        self._stack.close()
