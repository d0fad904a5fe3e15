"""`apps:*` and `git:set`: settings of an app that do not depend on its releases."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from receiver.cli import out
from receiver.cli.args import app_argument, change, json_option, ledger_of
from receiver.cli.main import Context
from receiver.errors import Busy, Rejected
from receiver.here import typed
from receiver.ledger import ledger as ledgers
from receiver.ledger.queue import queued
from receiver.names import AppName, branch
from receiver.proxy.endpoint import address, takes_requests
from receiver.story.create import create_app
from receiver.story.submit import tell
from receiver.system import disk


@click.command()
@app_argument
@click.pass_obj
def create(ctx: Context, app: AppName) -> None:
    """Make an app, so that it can be configured before its first push.

    \b
    Example: shipit apps:create blog
    """
    with ctx.connect_agent() as agent:
        made = create_app(ctx.layout, app, agent, ctx.settings)
    if not made:
        raise Rejected(f"There is an app {app!r} already.", hint=f"Look at it: shipit status {app}")
    out.say(typed(f"Created {app}. Put a commit live: git push HOST:{app} main"))


@click.command()
@json_option
@click.pass_obj
def list_apps(ctx: Context, form: str) -> None:
    """List the apps of this server."""
    rows = []
    for app in ledgers.apps(ctx.layout):
        if not ctx.caller.sees(app):
            continue
        ledger = ledgers.Ledger(ctx.layout.app(app))
        current, state = ledger.current(), ledger.state()
        rows.append(
            {
                "app": app,
                "release": current.name if current else "",
                "commit": (current.commit or "")[:8] if current else "",
                "live since": out.when(current.finished) if current else "",
                "state": "stopped"
                if state.stopped
                else "locked"
                if state.locked
                else "maintenance"
                if ledger.paths.maintenance.exists()
                else "live"
                if current
                else "new",
                "url": "" if not takes_requests(current) else address(ctx.layout, state, current, ctx.settings),
            }
        )
    if form == "json":
        out.show_json(rows)
    else:
        out.table(
            rows,
            {"app": "APP", "state": "STATE", "release": "RELEASE", "commit": "COMMIT", "live since": "LIVE SINCE",
             "url": "URL"},
            empty="There are no apps yet. The first push makes one: git push HOST:APP main",
        )  # fmt: skip


@click.command()
@app_argument
@click.pass_obj
def exists(ctx: Context, app: AppName) -> int:
    """Exit 0 if the app exists, 1 if not."""
    return 0 if ledgers.Ledger(ctx.layout.app(app)).exists() else 1


@click.command()
@app_argument
@click.option("--force", is_flag=True, help="Do not ask for the name.")
@click.pass_obj
def destroy(ctx: Context, app: AppName, force: bool) -> None:
    """Remove an app: processes, releases, config vars, repository and data.

    \b
    Example: shipit apps:destroy blog
    """
    ledger = ledger_of(ctx, app)
    if not force:
        sys.stdout.write(f"This removes {app} with all its releases and its data. Type its name to go on: ")
        sys.stdout.flush()
        if sys.stdin.readline().strip() != app:
            raise Rejected(
                "The name was not typed.", holds="Nothing was removed.", hint=f"Without asking: --force {app}"
            )
    with queued(ledger, ctx.caller.name, push=False, say=tell):
        try:
            with disk.locked(ledger.paths.app_lock, wait=False), ctx.connect_agent() as agent:
                agent.destroy_app(app)
        except BlockingIOError:
            raise Busy(f"A release of {app} is being made.", hint=f"Stop it first: shipit cancel {app}") from None
    out.say(f"Destroyed {app}.")


@click.command()
@app_argument
@click.option("-m", "--message", default="locked", help="Why; shown to whoever pushes.")
@click.pass_obj
def lock(ctx: Context, app: AppName, message: str) -> None:
    """Refuse pushes and every other change until `apps:unlock`."""
    note = f"{message[:200]} ({ctx.caller.name})"
    ledger_of(ctx, app).change_state(lambda state: replace(state, locked=note))
    out.say(f"Locked {app}: {note}")


@click.command()
@app_argument
@click.pass_obj
def unlock(ctx: Context, app: AppName) -> None:
    """Allow changes again."""
    ledger_of(ctx, app).change_state(lambda state: replace(state, locked=""))
    out.say(f"Unlocked {app}.")


@click.command()
@app_argument
@click.argument("setting", type=click.Choice(["deploy-branch", "force-push", "delete"]))
@click.argument("value")
@click.pass_obj
def git_set(ctx: Context, app: AppName, setting: str, value: str) -> None:
    """Set the deploy branch, or whether it may be force-pushed or deleted (on, off).

    \b
    Examples:
      shipit git:set blog deploy-branch production
      shipit git:set blog force-push on
    """
    ledger = ledger_of(ctx, app)
    if setting == "deploy-branch":
        name = branch(value)
        change(ledger, lambda state: replace(state, branch=name))
    elif value not in ("on", "off"):
        raise Rejected(f"{setting} is on or off, not {value!r}.")
    elif setting == "force-push":
        change(ledger, lambda state: replace(state, allow_force_push=value == "on"))
    else:
        change(ledger, lambda state: replace(state, allow_delete=value == "on"))
    out.say(f"{app}: {setting} is {value}.")
