"""`domains:*`: the names an app answers to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from receiver.cli import out
from receiver.cli.args import DOMAIN, app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.cli.tls import certify
from receiver.errors import Failure, NotFound, Rejected
from receiver.ledger.queue import queued
from receiver.model import AppState
from receiver.names import AppName, Domain
from receiver.proxy.certificates import asks
from receiver.proxy.vhost import domains
from receiver.settings import default_domain
from receiver.story.domains import claiming
from receiver.story.submit import tell


@click.command()
@app_argument
@click.argument("domain", type=DOMAIN, nargs=-1, required=True)
@click.pass_obj
def add(ctx: Context, app: AppName, domain: tuple[Domain, ...]) -> None:
    """Let an app answer to a domain; a domain belongs to one app only.

    Its shipit.yml may then ask for the domain as well. APP.DOMAIN of the server stays until it is removed.

    \b
    Example: shipit domains:add blog www.example.org example.org
    """
    default = default_domain(app, ctx.settings)

    def given(old: AppState) -> AppState:
        new = tuple(name for name in domain if name not in old.domains and name != default)
        return replace(old, domains=(*old.domains, *new), without_default=old.without_default and default not in domain)

    change(ctx, app, given, claimed=domain)
    out.say(f"{app} answers to {', '.join(domain)}.")
    if asks(ledger_of(ctx, app).state(), ctx.settings):
        certify(ctx, app, now=False)


@click.command()
@app_argument
@click.argument("domain", type=DOMAIN, nargs=-1, required=True)
@click.pass_obj
def remove(ctx: Context, app: AppName, domain: tuple[Domain, ...]) -> None:
    """Take a domain away from an app; its shipit.yml may not ask for it any more."""
    ledger = ledger_of(ctx, app)
    state, release = ledger.state(), ledger.current()
    default = default_domain(app, ctx.settings)
    for name in domain:
        if name not in (*domains(app, state, release, ctx.settings), *state.approved):
            raise NotFound(f"{app} does not have the domain {name}.", hint=f"List them: shipit domains:list {app}")

    def left(old: AppState) -> AppState:
        return replace(
            old,
            domains=tuple(name for name in old.domains if name not in domain),
            approved=tuple(name for name in old.approved if name not in domain),
            without_default=old.without_default or default in domain,
        )

    if default in domains(app, left(state), release, ctx.settings) and default in domain:
        raise Rejected(
            f"{app} would answer to nothing: {default} is its only name.",
            holds="Nothing was changed.",
            hint=f"Give it another first: shipit domains:add {app} www.example.org    Or stop it: shipit ps:stop {app}",
        )
    change(ctx, app, left, claimed=())
    out.say(f"{app} no longer answers to {', '.join(domain)}.")


@click.command()
@app_argument
@json_option
@click.pass_obj
def list_domains(ctx: Context, app: AppName, form: str) -> None:
    """List the names an app answers to."""
    ledger = ledger_of(ctx, app)
    shown = domains(app, ledger.state(), ledger.current(), ctx.settings)
    if form == "json":
        default = default_domain(app, ctx.settings)
        out.show_json({"app": app, "domains": list(shown), "default": default in shown})
        return
    for name in shown:
        out.say(name)


def change(ctx: Context, app: AppName, new: Callable[[AppState], AppState], claimed: tuple[Domain, ...]) -> None:
    """Record the domains and update the proxy; undone if the proxy refuses them."""
    ledger = ledger_of(ctx, app)
    with (
        queued(ledger, ctx.caller.name, push=False, say=tell),
        claiming(ctx.layout, app, claimed, ctx.settings),
        ctx.connect_agent() as agent,
    ):
        before = ledger.state()
        ledger.change_state(new)
        try:
            agent.proxy(app)
        except Failure:
            ledger.change_state(
                lambda state: replace(
                    state,
                    domains=before.domains,
                    approved=before.approved,
                    without_default=before.without_default,
                    https=before.https,
                )
            )
            raise
