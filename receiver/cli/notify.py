"""`notify:test`: sends a test message to each address in the app's section `notify`, and says which were reached."""

from __future__ import annotations

import click

from receiver.cli import out
from receiver.cli.args import app_argument, ledger_of
from receiver.cli.main import Context
from receiver.errors import Rejected
from receiver.names import AppName


@click.command()
@app_argument
@click.pass_obj
def test(ctx: Context, app: AppName) -> int:
    """Send a test message by every way in `notify:` of the server and of the live release; exit 1 if one fails."""
    # Imported here, because these modules load what sends mail and HTTP.
    from receiver.ops.notify.chosen import about, ways_of
    from receiver.ops.notify.ways import send_all

    ledger = ledger_of(ctx, app)
    live = ledger.current()
    if live is None:
        raise Rejected(f"{app} has no release yet.", hint=f"Push one: git push HOST:{app} main")
    found = ways_of(ledger, live, ctx.settings)
    if not found:
        raise Rejected(
            f"Nobody is to be told of {app}.",
            hint="In shipit.yml:  notify: {email: [you@example.org]}\nFor all apps: docs/operating.md, Notifications",
        )
    results = send_all(found, about("test", ledger, live, ctx.settings, by=ctx.caller.name))
    for way, told, wrong in results:
        out.say(f"{'FAIL' if wrong else 'ok  '}  {way:<8}  {wrong.message if wrong else told}")
        for line in [*wrong.details, *wrong.hint.splitlines()] if wrong else []:
            out.say(f"        {line}")
    return int(any(wrong for *_, wrong in results))
