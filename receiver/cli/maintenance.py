"""`maintenance:*`: a page instead of the app."""

from __future__ import annotations

import click

from receiver.cli import out
from receiver.cli.args import app_argument, ledger_of
from receiver.cli.main import Context
from receiver.here import typed
from receiver.names import AppName
from receiver.proxy import maintenance


@click.command()
@app_argument
@click.option("--message", default="", help="What visitors are told, in one line.")
@click.pass_obj
def enable(ctx: Context, app: AppName, message: str) -> None:
    """Show visitors a maintenance page (503); the app goes on running, and deploys go on.

    \b
    Example: shipit maintenance:enable blog --message "We move to a larger machine. Back at 14:00."
    """
    maintenance.enable(ledger_of(ctx, app), message)
    out.say(
        typed(f"Visitors of {app} see the maintenance page. Show them the app again: shipit maintenance:disable {app}")
    )


@click.command()
@app_argument
@click.pass_obj
def disable(ctx: Context, app: AppName) -> None:
    """Show visitors the app again."""
    was = maintenance.disable(ledger_of(ctx, app))
    out.say(f"Visitors see {app} again." if was else f"{app} is not in maintenance.")
