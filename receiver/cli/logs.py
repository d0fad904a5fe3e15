"""`logs`: what the processes of the live release and of earlier ones printed."""

from __future__ import annotations

import click

from receiver.cli.args import PROCESS, RELEASE, app_argument, ledger_of
from receiver.cli.main import Context
from receiver.engines import all as engines
from receiver.engines.base import Wanted
from receiver.names import AppName, TypeName


@click.command()
@app_argument
@click.option("-t", "--tail", is_flag=True, help="Go on, and print new lines as they come.")
@click.option("-n", "--num", default=100, show_default=True, type=click.IntRange(1, 1_000_000), help="How many lines.")
@click.option("-p", "--ps", "process", type=PROCESS, help="Only of one process type.")
@click.option("--release", type=RELEASE, help="Only of one release: v7.")
@click.option("--since", default="", help="Only from this time on, in journalctl's form: '10 min ago'.")
@click.option("--grep", default="", help="Only lines that match.")
@click.option("-q", "--quiet", is_flag=True, help="Only the text, without time and process.")
@click.pass_obj
def show(
    ctx: Context, app: AppName, tail: bool, num: int, process: TypeName | None, release: int | None, since: str,
    grep: str, quiet: bool,
) -> int:  # fmt: skip
    """Show what the processes of an app printed.

    \b
    Examples:
      shipit logs blog -t
      shipit logs blog -p worker --since '1 hour ago'
      shipit logs blog --release v7
    """
    ledger = ledger_of(ctx, app)
    found = ledger.release(release) if release else None
    known = found or ledger.current()
    if process and known and known.slug:
        known.process(process)
    # A release that took over warm processes has its output under their release's number.
    wanted = Wanted(app, process, found.runs_as if found else None, num, tail, since, grep, quiet)
    return engines.here(ctx.layout).show(wanted, found)
