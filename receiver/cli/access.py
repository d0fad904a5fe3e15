"""Access to the repository that an app follows: its keys, passwords, trusted hosts and allowed signers."""

from __future__ import annotations

import click

from receiver.cli import out
from receiver.cli.args import app_argument, ledger_of
from receiver.cli.given import read_line, read_text
from receiver.cli.main import Context
from receiver.errors import Rejected, printable
from receiver.names import AppName
from receiver.sources.pull import access
from receiver.sources.pull.wish import Place
from receiver.story.submit import tell


@click.command()
@app_argument
@click.option("--force", is_flag=True, help="Replace the key that there is.")
@click.pass_obj
def generate_key(ctx: Context, app: AppName, force: bool) -> None:
    """Make the key that the app fetches with, and print its public half.

    \b
    Example: shipit git:generate-deploy-key blog
    """
    place = Place(ledger_of(ctx, app).paths)
    out.say(access.make_key(place, app, again=force))


@click.command()
@app_argument
@click.pass_obj
def public_key(ctx: Context, app: AppName) -> None:
    """Print the public half of the app's deploy key, for the owner of the repository."""
    out.say(access.public_key(Place(ledger_of(ctx, app).paths), app))


@click.command()
@app_argument
@click.argument("host")
@click.argument("user", required=False)
@click.argument("password", required=False, metavar="[PASSWORD|-]")
@click.pass_obj
def auth(ctx: Context, app: AppName, host: str, user: str | None, password: str | None) -> None:
    """Set the user and password with which the app fetches from a host by https; without a user, remove them.

    \b
    Example: shipit git:auth blog github.com ann - < TOKEN
    """
    place, host = Place(ledger_of(ctx, app).paths), access.host_of(host)
    if user is None:
        access.set_password(place, host, "", "")
        out.say(f"{app} asks {host} as nobody.")
        return
    hint = f"shipit git:auth {app} {host} {user} - < PASSWORD"
    if password in (None, "-"):
        password = read_line(4096, hint)
    if not password:
        raise Rejected("The password is empty.", hint=hint)
    access.set_password(place, host, user, password)
    out.say(f"{app} asks {host} as {printable(user)}.")


@click.command()
@app_argument
@click.argument("host", metavar="HOST|-")
@click.pass_obj
def allow_host(ctx: Context, app: AppName, host: str) -> None:
    """Trust the host key that a machine shows now, or those on standard input (-); prints the fingerprints.

    \b
    Examples:
      shipit git:allow-host blog github.com
      ssh-keyscan git.example.org | shipit git:allow-host blog -
    """
    place = Place(ledger_of(ctx, app).paths)
    if host == "-":
        hint = f"ssh-keyscan HOST | shipit git:allow-host {app} -"
        lines = read_text(2**16, hint).splitlines()
    else:
        lines = access.scan(access.host_of(host))
    for line in access.allow_host(place, lines):
        out.say(printable(line))
    if host != "-":
        tell("Compare these with what the host publishes.")


@click.command()
@app_argument
@click.argument("where", metavar="-")
@click.pass_obj
def allow_signers(ctx: Context, app: AppName, where: str) -> None:
    """Set whose signatures count: lines of ssh-keygen's allowed signers, on standard input.

    \b
    Example: shipit git:allow-signers blog - < allowed_signers
    """
    hint = f"shipit git:allow-signers {app} - < FILE"
    if where != "-":
        raise Rejected("The signers are read from standard input.", hint=hint)
    lines = read_text(2**16, hint).splitlines()
    count = access.allow_signers(Place(ledger_of(ctx, app).paths), lines)
    out.say(f"{count} signers are allowed for {app}.")
