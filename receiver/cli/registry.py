"""`registry:…`: logins for registries of container images. `images:layers` and `images:add`, which the client calls."""

from __future__ import annotations

from collections.abc import Iterator

import click

from receiver import names
from receiver.caller import Role
from receiver.cli import out
from receiver.cli.args import app_argument, ledger_of
from receiver.cli.given import read_line
from receiver.cli.main import Context
from receiver.errors import Rejected, printable
from receiver.here import typed
from receiver.ledger.ledger import apps
from receiver.names import AppName
from receiver.sources.logins import Allowed, Logins

everywhere = click.option("--global", "everywhere", is_flag=True, help="The server's own login.")


@click.command()
@everywhere
@click.argument("words", nargs=-1, metavar="APP|--global REGISTRY USER [-]")
@click.pass_obj
def login(ctx: Context, everywhere: bool, words: tuple[str, ...]) -> None:
    """Log an app, or the server, in to a registry of images. The password or token comes on standard input.

    An app uses the login of the server once an administrator has said so: shipit registry:allow.

    \b
    Examples:
      shipit registry:login shop ghcr.io ann < TOKEN
      shipit registry:login --global registry.example.org deploy < PASSWORD
    """
    from receiver.sources.registry import Login

    *where, user = words[:-1] if words[-1:] == ("-",) else words or ("",)
    place, host, whose = _place(ctx, everywhere, where, "registry:login APP REGISTRY USER < PASSWORD")
    hint = "It comes on standard input: registry:login … < PASSWORD"
    password = read_line(8192, hint)
    if not password:
        raise Rejected("The password is empty.", hint=hint)
    place.set(host, Login(user, password))
    out.say(f"{whose} {host} as {printable(user)}.")
    if everywhere:
        _tell_who(ctx, host)


@click.command()
@everywhere
@click.argument("words", nargs=-1, metavar="APP|--global REGISTRY")
@click.pass_obj
def logout(ctx: Context, everywhere: bool, words: tuple[str, ...]) -> None:
    """Forget the password of a registry, and who may use it."""
    place, host, whose = _place(ctx, everywhere, list(words), "registry:logout APP REGISTRY")
    place.set(host, None)
    for allowed in _allowed(ctx) if everywhere else [Allowed.of_app(ledger_of(ctx, names.app_name(words[0])).paths)]:
        allowed.set(host, may=False)
    out.say(f"{whose} {host} as nobody.")


@click.command()
@click.option("--global", "everywhere", is_flag=True, help="Every app, those to come too.")
@click.argument("words", nargs=-1, metavar="APP|--global REGISTRY")
@click.pass_obj
def allow(ctx: Context, everywhere: bool, words: tuple[str, ...]) -> None:
    """Let an app use the server's login to a registry (registry:login --global). Taken back by registry:logout APP.

    Whoever may push to the app can then fetch every image that the login may read.

    \b
    Examples:
      shipit registry:allow shop registry.example.org
      shipit registry:allow --global docker.io
    """
    _, host, _ = _place(ctx, everywhere, list(words), "registry:allow APP REGISTRY")
    if host not in Logins.of_all(ctx.layout).all():
        raise Rejected(
            f"The server has no login to {host}.", holds="Nothing was changed.",
            hint=f"First: shipit registry:login --global {host} USER < PASSWORD",
        )  # fmt: skip
    if everywhere:
        Allowed.of_all(ctx.layout).set(host, may=True)
    else:
        Allowed.of_app(ledger_of(ctx, names.app_name(words[0])).paths).set(host, may=True)
    _tell_who(ctx, host)


@click.command()
@app_argument
@click.pass_obj
def layers(ctx: Context, app: AppName) -> None:
    """Print the image layers that the server has of an app, one a line: of those of its releases the digests of the
    unpacked layers, and the digests of those that `images:add` has brought."""
    from receiver.sources.image_parts import Parts
    from receiver.story.layers import stored_layers

    ledger = ledger_of(ctx, app)
    for digest in sorted({*stored_layers(ledger), *Parts(ledger.paths).there()}):
        out.say(digest)


@click.command()
@app_argument
@click.argument("digest")
@click.pass_obj
def add(ctx: Context, app: AppName, digest: str) -> None:
    """Take one layer of an image from standard input, ahead of the image; `shipit deploy --image` on a laptop does it.

    \b
    Example: shipit images:add shop sha256:… < LAYER
    """
    import re

    from receiver.sources.image_parts import Parts
    from receiver.story.admit import room_for

    if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise Rejected(f"{digest[:80]!a} is no digest.", hint="As in: images:add APP sha256:… < LAYER")
    ledger = ledger_of(ctx, app)
    limit = min(ctx.settings.max_push * 2**20, room_for(ledger, ctx.settings))
    Parts(ledger.paths).add(digest, 0, limit)


def _place(ctx: Context, everywhere: bool, words: list[str], usage: str) -> tuple[Logins, str, str]:
    """The file of logins, the registry, and the beginning of the message."""
    from receiver.sources.registry import host_of

    if len(words) != (1 if everywhere else 2):
        raise Rejected("Which app, and which registry?", hint=f"{usage}     or --global in the place of APP")
    host = host_of(words[-1])
    if everywhere:
        ctx.caller.require(Role.ADMIN)
        return Logins.of_all(ctx.layout), host, "The server asks"
    app = names.app_name(words[0])
    ctx.caller.require(Role.DEPLOY, app)
    return Logins.of_app(ledger_of(ctx, app).paths), host, f"{app} asks"


def _allowed(ctx: Context) -> Iterator[Allowed]:
    """What is allowed to all apps, and to each."""
    yield Allowed.of_all(ctx.layout)
    for app in apps(ctx.layout):
        yield Allowed.of_app(ctx.layout.app(app))


def _tell_who(ctx: Context, host: str) -> None:
    """Which apps may use the server's login."""
    every, *_ = _allowed(ctx)
    may = [app for app in apps(ctx.layout) if host in Allowed.of_app(ctx.layout.app(app)).hosts()]
    if host in every.hosts():
        out.say("Every app may use it.")
    elif may:
        out.say(f"It is used by administrators (deploy --image) and the builds of: {', '.join(may)}.")
    else:
        out.say(typed(
            "It is used by administrators (deploy --image). For what an app's pushes name: "
            f"shipit registry:allow APP {host}"
        ))  # fmt: skip
