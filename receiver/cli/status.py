"""`status` and `version`."""

from __future__ import annotations

import time
from itertools import islice

import click

from receiver import __version__
from receiver.cli import out
from receiver.cli.args import app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.cli.releases import describe
from receiver.engines import all as engines
from receiver.engines.base import keeps_ending
from receiver.errors import printable
from receiver.ledger.ledger import Ledger
from receiver.model import AppState, Release, Status
from receiver.names import AppName
from receiver.ops import quota
from receiver.proxy import maintenance
from receiver.proxy.endpoint import address, silence, takes_requests
from receiver.settings import Settings
from receiver.sources.pull.wish import Place
from receiver.story import storage
from receiver.story.aftercare import trouble


@click.command()
@app_argument
@json_option
@click.pass_obj
def status(ctx: Context, app: AppName, form: str) -> int:
    """Say how an app is: what serves, what is being made, what runs. Exit 1 when it does not run as it should."""
    ledger = ledger_of(ctx, app)
    state, current, follow = ledger.state(), ledger.current(), Place(ledger.paths).read()
    with ctx.connect_agent() as agent:
        processes = [p for p in agent.processes(app) if current and p.release == current.runs_as]
    ending = [p for p in processes if keeps_ending(p, time.time())]
    up = sum(p.state.value == "running" and p not in ending for p in processes)
    wanted = len(current.running()) if current else 0
    newest = list(islice(ledger.newest_first(), 5))
    making = [r for r in newest if not r.status.final and ledger.worker_lives(r.number)]
    failed = [r for r in newest[:1] if r.status in (Status.FAILED, Status.CANCELLED)]
    answers = answering(ledger, state, current)
    resting = maintenance.told(ledger)
    well = state.stopped or (up == wanted and not answers.startswith("no"))
    shown = {
        "app": app,
        "state": "stopped"
        if state.stopped
        else "new"
        if not current or not current.slug
        else "maintenance"
        if well and resting
        else "live"
        if well
        else "degraded",
        "release": current.name if current else "",
        "commit": f"{current.origin.short} {current.origin.title}".strip() if current and current.origin else "",
        "since": out.when(current.finished) if current else "",
        "by": current.by if current else "",
        "processes": f"{up} of {wanted} running",
        "formation": " ".join(f"{k}={n}" for k, n in current.formation) if current else "",
        "url": address(ctx.layout, state, current, ctx.settings) if takes_requests(current) else "",
        "answers": answers,
        "maintenance": resting,
        "guarded": "visitors need a password" if state.guarded else "",
        "trouble": "; ".join(": ".join(trouble(engines.here(ctx.layout), current, p)) for p in ending if current),
        "data": held(ledger, state, ctx.settings),
        "branch": state.branch or "the first that is pushed",
        "follows": f"{follow.what} of {follow.url}" if follow else "",
        "not followed": (follow.refused or follow.reason) if follow else "",
        "locked": state.locked,
        "making": ", ".join(f"{r.name} ({describe(r)}) by {r.by}" for r in making),
        "last failure": f"{failed[0].name}: {failed[0].reason}" if failed else "",
    }
    if form == "json":
        out.show_json(shown)
    else:
        out.fields({name: printable(value) for name, value in shown.items() if value})
    return 0 if well else 1


def answering(ledger: Ledger, state: AppState, current: Release | None) -> str:
    """Whether visitors get an answer now; the live release is asked."""
    if current is None or not current.slug:
        return "503: nothing was put live yet" if current else ""
    if state.stopped:
        return "503: it is stopped"
    if not takes_requests(current):
        return ""
    if why := silence(ledger, current):
        return f"no: {why}"
    return "503: it is in maintenance" if maintenance.told(ledger) else "yes"


def held(ledger: Ledger, state: AppState, known: Settings) -> str:
    """How much of its quota the app's data uses, from the last measurement."""
    most = quota.of(state, known)
    if not most:
        return ""
    found = storage.last(ledger)
    return (
        f"{quota.against(found.used, most)}, {out.age(found.at)}"
        if found
        else f"not measured yet, of {quota.size(most * quota.MIB)}"
    )


@click.command()
def version() -> None:
    """Print the version of shipit."""
    out.say(f"shipit {__version__}")
