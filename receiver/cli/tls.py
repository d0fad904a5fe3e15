"""`tls:*`: HTTPS, with certificates that shipit asks for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click

from receiver.cli import out
from receiver.cli.args import APP, app_argument, json_option, ledger_of
from receiver.cli.given import read_input
from receiver.cli.main import Context
from receiver.errors import Failure, HostFault, Rejected
from receiver.ledger.ledger import Ledger, apps
from receiver.ledger.queue import queued
from receiver.model import Https
from receiver.names import AppName, Domain, dns_plugin
from receiver.proxy.certificates import LONGEST_WAIT, Certificates, Dns, asks, can_ask
from receiver.proxy.vhost import domains
from receiver.story.submit import tell

MAX_PEM = 256 * 1024


@click.command()
@app_argument
@click.option(
    "--dns", "plugin", metavar="PLUGIN", help="Prove names by DNS, with certbot's plugin. none: by HTTP again."
)
@click.option(
    "--dns-wait", type=click.IntRange(0, LONGEST_WAIT), default=0, metavar="SECONDS",
    help="How long the name servers need to know the record, if longer than the plugin waits.",
)  # fmt: skip
@click.pass_obj
def enable(ctx: Context, app: AppName, plugin: str | None, dns_wait: int) -> None:
    """Serve an app by HTTPS: ask for a certificate for each of its names, now and before it expires.

    By this you agree to the terms of the certificate authority: Let's Encrypt, unless `acme_directory` of the server's
    settings names another. A name that the app gets later gets a certificate by itself. With --dns, wildcards get one
    too, and names that the internet does not reach: the credentials of the plugin, in the form of its documentation,
    are read from standard input.

    \b
    Examples:
      shipit tls:enable blog
      ssh prod shipit tls:enable blog --dns cloudflare < cloudflare.ini
    """
    if plugin is not None:
        prove_by_dns(ctx, app, plugin, dns_wait)
    elif dns_wait:
        raise Rejected("--dns-wait needs --dns.", hint=f"shipit tls:enable {app} --dns PLUGIN --dns-wait {dns_wait}")
    switch(ctx, app, Https.ON)
    certify(ctx, app, now=True, missing=True)


@click.command()
@app_argument
@click.pass_obj
def disable(ctx: Context, app: AppName) -> None:
    """Serve an app by HTTP alone. Its certificates stay, for `tls:enable`."""
    switch(ctx, app, Https.OFF)
    out.say(f"{app} is served by HTTP alone.")


@click.command()
@click.argument("app", type=APP, required=False)
@click.pass_obj
def renew(ctx: Context, app: AppName | None) -> None:
    """Ask for new certificates now, for an app or for all. Usually not needed: a timer renews them.

    Authorities limit this: Let's Encrypt gives the same certificate at most five times a week.
    """
    failed: list[str] = []
    for one in [app] if app else [a for a in apps(ctx.layout) if ctx.caller.sees(a)]:
        if not asks(ledger_of(ctx, one).state(), ctx.settings):
            if app:
                raise Rejected(
                    f"No certificates are asked for {app}.", hint=f"Have them asked for: shipit tls:enable {app}"
                )
            continue
        try:
            certify(ctx, one, now=True)
        except Failure as failure:
            if app:
                raise
            out.say(failure.message)
            failed.append(one)
    if failed:
        raise HostFault(
            f"Not all certificates were renewed: {', '.join(failed)}.",
            holds="The old ones serve on.",
            hint="Why: shipit tls:report",
        )


@click.command()
@click.argument("app", type=APP, required=False)
@json_option
@click.pass_obj
def report(ctx: Context, app: AppName | None, form: str) -> None:
    """Show which names are served by HTTPS, until when their certificates last, and what is in the way."""
    wanted = [app] if app else [one for one in apps(ctx.layout) if ctx.caller.sees(one)]
    rows = [row for one in wanted for row in rows_of(ctx, one)]
    if form == "json":
        out.show_json(rows)
        return
    shown = [{**row, "expires": day(row["expires"])} for row in rows]
    columns = {"app": "APP", "name": "NAME", "certificate": "CERTIFICATE", "expires": "EXPIRES", "why": "IN THE WAY"}
    out.table(shown, columns, empty="There are no apps yet.")


def prove_by_dns(ctx: Context, app: AppName, plugin: str, wait: int) -> None:
    """Have root keep the credentials from standard input; without a plugin, remove the app's credentials."""
    name = "" if plugin == "none" else dns_plugin(plugin)
    data = (
        standard_input("No credentials were given.", f"ssh HOST tls:enable {app} --dns {name} < FILE") if name else b""
    )
    if name and not data.strip():
        raise Rejected(
            f"No credentials for certbot's plugin dns-{name} were given.", holds="Nothing was changed.",
            hint=f"ssh HOST tls:enable {app} --dns {name} < FILE",
        )  # fmt: skip
    ledger = ledger_of(ctx, app)
    with (
        queued(ledger, ctx.caller.name, push=False, say=tell),
        ctx.connect_agent() as agent,
        in_memory(data) as source,
    ):
        agent.prove_by_dns(app, name, wait, source)


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """A descriptor from which the agent reads these bytes; they are in no file."""
    source = os.memfd_create("secret", os.MFD_CLOEXEC)
    try:
        with open(source, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(source, 0, os.SEEK_SET)
        yield source
    finally:
        os.close(source)


def switch(ctx: Context, app: AppName, to: Https) -> None:
    """Record whether HTTPS is wanted, and update the proxy; undone if the proxy refuses."""
    ledger = ledger_of(ctx, app)
    with queued(ledger, ctx.caller.name, push=False, say=tell), ctx.connect_agent() as agent, switched(ledger, to):
        agent.proxy(app)


@contextmanager
def switched(ledger: Ledger, to: Https) -> Iterator[None]:
    """Record whether HTTPS is wanted. The caller has the app's turn. Undone if the block fails."""
    before = ledger.state()
    ledger.change_state(lambda state: replace(state, https=to))
    try:
        yield
    except Failure:
        ledger.change_state(lambda state: replace(state, https=before.https))
        raise


def certify(ctx: Context, app: AppName, *, now: bool, missing: bool = False) -> None:
    """Have certificates asked for and print the results; raises HostFault if one could not be had.

    `missing`: leave existing certificates alone that need no renewal.
    """
    names = names_of(ctx, app)
    dns = dns_of(ctx, app) is not None
    if missing and all(served(ctx, app, name) for name in names if can_ask(name, dns=dns)):
        now = False
    sys.stdout.flush()
    with ctx.connect_agent() as agent:
        done = agent.certify(app, 2, now=now)
    for name, well, _ in done:
        if well:
            out.say(f"{name} has a certificate: https://{name}")
    for name in names:
        if not can_ask(name, dns=dns) and not served(ctx, app, name):
            out.say(f"{name} gets none: {reason(name)}")
    if bad := [(name, why) for name, well, why in done if not well]:
        serving = [name for name, _ in bad if served(ctx, app, Domain(name))]
        raise HostFault(
            f"No certificate for {', '.join(name for name, _ in bad)}.", details=[f"{name}: {why}" for name, why in bad],
            holds=f"The old one serves {', '.join(serving)} on." if serving else f"{app} is served there by HTTP, as before.",
            hint=f"It is tried again by itself, ever more rarely. At once, when it is mended: shipit tls:renew {app}",
        )  # fmt: skip
    if not done and all(served(ctx, app, name) for name in names if can_ask(name, dns=dns)):
        out.say(f"All names of {app} that can have a certificate have one.")


def reason(name: Domain) -> str:
    """Why no certificate is asked for this name."""
    if name.startswith("*."):
        return "one for a wildcard is asked for by DNS (tls:enable --dns), or brought with certs:add (docs/tls.md)"
    return "no authority gives one for a name that is not on the internet"


def names_of(ctx: Context, app: AppName) -> Sequence[Domain]:
    ledger = ledger_of(ctx, app)
    return domains(app, ledger.state(), ledger.current(), ctx.settings)


def dns_of(ctx: Context, app: AppName) -> Dns | None:
    """How the app's names are proved by DNS; None: by HTTP."""
    return Certificates(ctx.layout.app(app)).dns(ctx.settings)


def served(ctx: Context, app: AppName, name: Domain) -> bool:
    """Whether the name has a certificate that has not expired."""
    now = time.time()
    one = Certificates(ctx.layout.app(app)).serving(name, now)
    return one is not None and now < one.not_after


def rows_of(ctx: Context, app: AppName) -> list[dict[str, Any]]:
    """The rows of `tls:report` for an app: one for each of its names."""
    ledger = ledger_of(ctx, app)
    state, store, now = ledger.state(), Certificates(ledger.paths), time.time()
    rows = []
    dns = store.dns(ctx.settings)
    for name in names_of(ctx, app):
        one, last = store.serving(name, now), store.last_try(name)
        why = last.why
        if not why and one is None and asks(state, ctx.settings) and not can_ask(name, dns=dns is not None):
            why = reason(name)
        kind = "off" if state.https is Https.OFF else one.origin.value if one else "none"
        rows.append(
            {
                "app": app, "name": name, "certificate": "expired" if one and now >= one.not_after else kind,
                "asked for": asks(state, ctx.settings) and can_ask(name, dns=dns is not None),
                "proved by": f"dns-{dns.plugin}" if dns else "http", "expires": one.not_after if one else 0.0,
                "issuer": one.issuer if one else "", "fingerprint": one.fingerprint if one else "",
                "failures": last.failures, "next try": last.next, "why": why,
            }
        )  # fmt: skip
    return rows


def day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)) if when else ""


def standard_input(
    nothing: str = "No certificate was given.", hint: str = "cat fullchain.pem privkey.pem | ssh HOST certs:add APP"
) -> bytes:
    """All of standard input, within the limit; raises Rejected if it is a terminal."""
    if sys.stdin.isatty():
        raise Rejected(nothing, hint=hint)
    return read_input(MAX_PEM, hint)
