"""`nginx:*`: an app's own directives for nginx."""

from __future__ import annotations

import sys

import click

from receiver.cli import out
from receiver.cli.args import app_argument, json_option, ledger_of
from receiver.cli.given import read_input
from receiver.cli.main import Context
from receiver.errors import Failure, NotFound, Rejected
from receiver.ledger.ledger import FILE_MODE
from receiver.ledger.queue import queued
from receiver.names import AppName
from receiver.proxy import snippet
from receiver.proxy.snippet import Snippet
from receiver.records import encode
from receiver.story.submit import tell
from receiver.system import disk


@click.command("set")
@app_argument
@click.pass_obj
def set_lines(ctx: Context, app: AppName) -> None:
    """Give an app lines of nginx's own language, from standard input, for what shipit.yml has no key.

    Only directives on a list are taken (docs/proxy.md), and none that reaches beyond the app. They replace the lines
    that the app had.

    \b
    Example: ssh prod shipit nginx:set blog < blog.nginx
    """
    hint = f"ssh HOST nginx:set {app} < FILE    Take them away: shipit nginx:unset {app}"
    if sys.stdin.isatty():
        raise Rejected("No lines were given.", hint=hint)
    data = read_input(snippet.MAX_SIZE, hint)
    try:
        found = snippet.parse(data.decode("ascii", errors="replace"))
    except Rejected as wrong:
        wrong.holds = wrong.holds or "Nothing was changed."
        raise
    if not found.rows:
        raise Rejected("There is no directive in it.", holds="Nothing was changed.", hint=hint)
    put(ctx, app, found)
    out.say(f"nginx serves {app} with {len(found.rows)} lines of its own.")


@click.command("unset")
@app_argument
@click.pass_obj
def unset_lines(ctx: Context, app: AppName) -> None:
    """Remove an app's own lines for nginx."""
    if not ledger_of(ctx, app).paths.snippet.exists():
        raise NotFound(f"{app} has no lines of its own for nginx.", hint=f"shipit nginx:show {app}")
    put(ctx, app, None)
    out.say(f"nginx serves {app} without lines of its own.")


@click.command()
@app_argument
@json_option
@click.pass_obj
def show(ctx: Context, app: AppName, form: str) -> None:
    """Show an app's own lines for nginx, as shipit understood them."""
    found = snippet.of(ledger_of(ctx, app).paths)
    if form == "json":
        out.show_json({"app": app, "lines": str(found).splitlines() if found else []})
        return
    out.say(str(found) if found else f"{app} has no lines of its own for nginx.")


def put(ctx: Context, app: AppName, new: Snippet | None) -> None:
    """Write the directives and update the proxy; if it refuses them, the old ones are restored."""
    ledger = ledger_of(ctx, app)
    path = ledger.paths.snippet
    with queued(ledger, ctx.caller.name, push=False, say=tell), ctx.connect_agent() as agent:
        before = path.read_bytes() if path.exists() else None

        def write(content: bytes | None) -> None:
            if content is None:
                disk.remove_file(path)
            else:
                disk.write_atomically(path, content, FILE_MODE)

        write(encode(new) if new else None)
        try:
            agent.proxy(app)
        except Failure:
            write(before)
            raise
