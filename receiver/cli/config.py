"""`config:*`: the app's config vars. Every change is a release, so it is checked, and a rollback takes it back."""

from __future__ import annotations

import click

from receiver.cli import out
from receiver.cli.args import KEY, RELEASE, app_argument, json_option, ledger_of
from receiver.cli.given import read_input
from receiver.cli.main import Context
from receiver.errors import NotFound, Rejected
from receiver.here import typed
from receiver.model import Change
from receiver.names import AppName, ConfigKey, config_key
from receiver.story.submit import Submission, tell

MASK = "••••••"
MOST = 1024 * 1024  # bytes of a value on standard input
WORDS = (
    "A value with blanks needs quotes, and over ssh so does the whole command: ssh HOST \"config:set APP 'NAME=a value'\"\n"
    "or send the value over standard input: ssh HOST config:set APP NAME - < FILE"
)


def read(ctx: Context, app: AppName, release: int = 0) -> dict[ConfigKey, str]:
    """The config vars of a release (0: the live one), with their values."""
    number = release or ledger_of(ctx, app).current_number()
    if not number:
        return {}
    with ctx.connect_agent() as agent:
        return {**agent.read_config(app, number)}


@click.command()
@app_argument
@click.option("--reveal", is_flag=True, help="Show the values.")
@click.option("--release", type=RELEASE, default=0, help="Show those of an earlier release: v7.")
@json_option
@click.pass_obj
def show(ctx: Context, app: AppName, reveal: bool, release: int, form: str) -> None:
    """Show the config vars, masked unless --reveal."""
    values = {str(k): v if reveal else MASK for k, v in sorted(read(ctx, app, release).items())}
    if form == "json":
        out.show_json(values)
    elif values:
        out.fields(values)
    else:
        out.say(typed(f"{app} has no config vars. Set one: shipit config:set {app} NAME=value"))


@click.command()
@app_argument
@click.argument("key", type=KEY)
@click.pass_obj
def get(ctx: Context, app: AppName, key: ConfigKey) -> None:
    """Print the value of one config var."""
    values = read(ctx, app)
    if key not in values:
        raise NotFound(f"{app} has no config var {key}.", hint=f"List them: shipit config:keys {app}")
    out.say(values[key])


@click.command()
@app_argument
@json_option
@click.pass_obj
def keys(ctx: Context, app: AppName, form: str) -> None:
    """List the names of the config vars."""
    found = sorted(read(ctx, app))
    if form == "json":
        out.show_json(found)
    else:
        for name in found:
            out.say(name)


@click.command()
@app_argument
@click.argument("pairs", nargs=-1, required=True, metavar="NAME=value... | NAME -")
@click.pass_obj
def set_vars(ctx: Context, app: AppName, pairs: tuple[str, ...]) -> int:
    """Set config vars; the app goes live with them as a new release.

    \b
    Examples:
      shipit config:set blog DEBUG=0 REGION=eu
      shipit config:set blog TLS_KEY - < key.pem     the value comes from standard input
    """
    change = parse_pairs(pairs)
    return submit(ctx, app, change, [])


@click.command()
@app_argument
@click.argument("key", type=KEY, nargs=-1, required=True)
@click.pass_obj
def unset_vars(ctx: Context, app: AppName, key: tuple[ConfigKey, ...]) -> int:
    """Remove config vars; the app goes live without them as a new release."""
    return submit(ctx, app, {}, list(key))


def parse_pairs(pairs: tuple[str, ...]) -> dict[ConfigKey, str]:
    """Parse `NAME=value` words, or `NAME -` with the value on standard input (without one trailing newline)."""
    if len(pairs) == 2 and pairs[1] == "-":
        hint = f"shipit config:set APP {pairs[0][:40]} - < FILE"
        value = read_input(MOST, hint).decode(errors="surrogateescape")
        return {config_key(pairs[0]): value[:-1] if value.endswith("\n") and value.count("\n") == 1 else value}
    change = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Rejected(f"{name[:40]!a} is not NAME=value.", hint=WORDS)
        change[config_key(name)] = value
    if any("\0" in value for value in change.values()):
        raise Rejected("A config var cannot hold a NUL byte.")
    return change


def submit(ctx: Context, app: AppName, change: dict[ConfigKey, str], unset: list[ConfigKey]) -> int:
    """Make one new release with the change; does nothing if nothing would change."""
    ledger = ledger_of(ctx, app)
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        current = ledger.current()
        today = submission.agent.read_config(app, current.number) if current else {}
        for key in unset:
            if key not in today:
                tell(f"{app} has no config var {key}.")
        unset = [key for key in unset if key in today]
        change = {key: value for key, value in change.items() if today.get(key) != value}
        if not change and not unset:
            out.say("Nothing changes: the config vars are so already.")
            return 0
        what = " ".join([*(f"set {k}" for k in change), *(f"unset {k}" for k in unset)])
        return submission.submit(Change.CONFIG, current, change, unset, message=what)
