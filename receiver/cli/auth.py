"""`auth:*`: names and passwords that visitors of an app need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import click

from receiver import names
from receiver.cli import out
from receiver.cli.args import Name, app_argument, json_option, ledger_of
from receiver.cli.given import read_input
from receiver.cli.main import Context
from receiver.errors import Failure, NotFound
from receiver.here import typed
from receiver.ledger.queue import queued
from receiver.names import AppName
from receiver.proxy import passwords
from receiver.story.submit import tell

VISITOR = Name("visitor", names.visitor)
Visitors = dict[str, str]  # name → hash of the password


@click.command("set")
@app_argument
@click.argument("visitor", type=VISITOR)
@click.argument("_password", metavar="[-]", type=click.Choice(["-"]), required=False)
@click.pass_obj
def set_password(ctx: Context, app: AppName, visitor: str, _password: str) -> None:
    """Give a visitor a password (from standard input). From the first one on, nobody sees the app without one.

    \b
    Example: pass show blog | ssh prod shipit auth:set blog alice -
    """
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        hint = f"pass show {app} | ssh HOST auth:set {app} {visitor} -"
        password = read_input(4 * passwords.MOST, hint).decode(errors="surrogateescape").removesuffix("\n")
    hashed = passwords.hashed(password)
    change(ctx, app, lambda known: {**known, visitor: hashed})
    out.say(typed(f"{visitor} may see {app}; who gives no password may not. Who may: shipit auth:list {app}"))


@click.command()
@app_argument
@click.argument("visitor", type=VISITOR)
@click.pass_obj
def remove(ctx: Context, app: AppName, visitor: str) -> None:
    """Remove a visitor's password. When none is left, everybody may see the app."""

    def without(known: Visitors) -> Visitors:
        if visitor not in known:
            raise NotFound(f"{visitor} has no password for {app}.", hint=f"Who has: shipit auth:list {app}")
        return {name: hashed for name, hashed in known.items() if name != visitor}

    left = change(ctx, app, without)
    out.say(f"{visitor} may no longer see {app}." if left else f"Everybody may see {app}: nobody has a password now.")


@click.command("list")
@app_argument
@json_option
@click.pass_obj
def list_visitors(ctx: Context, app: AppName, form: str) -> None:
    """List who has a password for an app."""
    known = sorted(passwords.visitors(ledger_of(ctx, app)))
    if form == "json":
        out.show_json({"app": app, "visitors": known})
        return
    for name in known or ["Everybody may see it."]:
        out.say(name)


def change(ctx: Context, app: AppName, new: Callable[[Visitors], Visitors]) -> Visitors:
    """Change who may see the app, in its turn; update the proxy if the app becomes guarded or open by that."""
    ledger = ledger_of(ctx, app)
    with queued(ledger, ctx.caller.name, push=False, say=tell), ctx.connect_agent() as agent:
        before, was = passwords.visitors(ledger), ledger.state().guarded
        known = new(before)
        if known:
            passwords.save(ledger, known)
        if was == bool(known):
            return known
        ledger.change_state(lambda state: replace(state, guarded=bool(known)))
        try:
            agent.proxy(app)
        except Failure:
            ledger.change_state(lambda state: replace(state, guarded=was))
            passwords.save(ledger, before)
            raise
        if not known:
            passwords.save(ledger, {})
        return known
