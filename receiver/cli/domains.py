"""`domains:*`: the names an app answers to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from receiver.cli import out
from receiver.cli.args import DOMAIN, app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.errors import Failure, NotFound
from receiver.ledger.queue import queued
from receiver.names import AppName, Domain
from receiver.settings import default_domain
from receiver.story.domains import claiming
from receiver.story.submit import tell


@click.command()
@app_argument
@click.argument("domain", type=DOMAIN, nargs=-1, required=True)
@click.pass_obj
def add(ctx: Context, app: AppName, domain: tuple[Domain, ...]) -> None:
    """Let an app answer to a domain; a domain belongs to one app only.

    \b
    Example: shipit domains:add blog www.example.org example.org
    """
    change(ctx, app, lambda old: (*old, *(d for d in domain if d not in old)), claimed=domain)
    out.say(f"{app} answers to {', '.join(domain)}.")


@click.command()
@app_argument
@click.argument("domain", type=DOMAIN, nargs=-1, required=True)
@click.pass_obj
def remove(ctx: Context, app: AppName, domain: tuple[Domain, ...]) -> None:
    """Take a domain away from an app."""
    old = ledger_of(ctx, app).state().domains
    for name in domain:
        if name not in old:
            raise NotFound(f"{app} does not have the domain {name}.", hint=f"List them: shipit domains:list {app}")
    change(ctx, app, lambda have: tuple(d for d in have if d not in domain), claimed=())
    out.say(f"{app} no longer answers to {', '.join(domain)}.")


@click.command()
@app_argument
@json_option
@click.pass_obj
def list_domains(ctx: Context, app: AppName, form: str) -> None:
    """List the domains of an app."""
    own = ledger_of(ctx, app).state().domains
    shown = own or (default_domain(app, ctx.settings),)
    if form == "json":
        out.show_json({"app": app, "domains": list(shown), "default": not own})
        return
    for name in shown:
        out.say(name)


def change(
    ctx: Context, app: AppName, new: Callable[[tuple[Domain, ...]], tuple[Domain, ...]], claimed: tuple[Domain, ...]
) -> None:
    """Write the domains and let the proxy follow; put back when the proxy refuses them."""
    ledger = ledger_of(ctx, app)
    with (
        queued(ledger, ctx.caller.name, push=False, say=tell),
        claiming(ctx.layout, app, claimed, ctx.settings),
        ctx.connect_agent() as agent,
    ):
        before = ledger.state().domains
        ledger.change_state(lambda state: replace(state, domains=new(before)))
        try:
            agent.proxy(app)
        except Failure:
            ledger.change_state(lambda state: replace(state, domains=before))
            raise
