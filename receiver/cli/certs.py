"""`certs:*`: a certificate that an admin brings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from receiver.cli import out
from receiver.cli.args import app_argument, json_option, ledger_of
from receiver.cli.main import Context, become_shipit
from receiver.cli.tls import MAX_PEM, certify, day, in_memory, names_of, served, standard_input, switched
from receiver.errors import Rejected
from receiver.ledger.queue import queued
from receiver.model import Https
from receiver.names import AppName
from receiver.proxy.certificates import Certificates, Installed, asks
from receiver.story.submit import tell


@click.command()
@app_argument
@click.argument("files", type=click.Path(path_type=Path), nargs=-1)
@click.pass_obj
def add(ctx: Context, app: AppName, files: tuple[Path, ...]) -> None:
    """Serve an app by a certificate of your own: PEM files, the server's certificate first, its chain, and the key.

    On the server, name the files; over ssh, send them on standard input, one after the other or as a tar. The
    certificate is checked before it is used; until then the one before it serves.

    \b
    Examples:
      shipit certs:add blog fullchain.pem privkey.pem
      cat fullchain.pem privkey.pem | ssh prod shipit certs:add blog
    """
    if files and os.geteuid():
        raise Rejected(
            "Files of the server are not read over ssh.",
            hint=f"Send them: cat {' '.join(map(str, files))} | ssh HOST certs:add {app}",
        )
    try:
        data = b"\n".join(read_file(path) for path in files) if files else standard_input()
    except OSError as error:
        raise Rejected(f"{error.filename} cannot be read: {error.strerror}.", holds="Nothing was changed.") from error
    if os.geteuid() == 0:
        become_shipit()
    ledger = ledger_of(ctx, app)
    with queued(ledger, ctx.caller.name, push=False, say=tell), ctx.connect_agent() as agent:
        now = ledger.state().https
        with switched(ledger, Https.DEFAULT if now is Https.OFF else now), in_memory(untarred(data)) as source:
            names = agent.add_certificate(app, source)
    missing = [name for name in names_of(ctx, app) if not served(ctx, app, name)]
    out.say(f"{app} is served by HTTPS with its own certificate, for {', '.join(names)}.")
    if missing:
        out.say(f"It is not for {', '.join(missing)}.")


@click.command()
@app_argument
@json_option
@click.pass_obj
def show(ctx: Context, app: AppName, form: str) -> None:
    """Show the certificate that an admin gave an app."""
    own = Certificates(ledger_of(ctx, app).paths).own()
    if form == "json":
        out.show_json(described(own) if own else None)
    elif own is None:
        out.say(f"{app} has no certificate of its own.")
    else:
        out.fields(
            {name: ", ".join(value) if isinstance(value, list) else value for name, value in described(own).items()}
        )


@click.command()
@app_argument
@click.pass_obj
def remove(ctx: Context, app: AppName) -> None:
    """Remove an app's own certificate. With `tls:enable`, its names get certificates of the authority instead."""
    ledger = ledger_of(ctx, app)
    with queued(ledger, ctx.caller.name, push=False, say=tell), ctx.connect_agent() as agent:
        gone = agent.remove_certificate(app)
    out.say(f"The own certificate of {app} is gone." if gone else f"{app} has no certificate of its own.")
    if gone and asks(ledger.state(), ctx.settings):
        certify(ctx, app, now=False)


def described(one: Installed) -> dict[str, Any]:
    return {
        "names": list(one.names), "issuer": one.issuer, "from": day(one.not_before), "until": day(one.not_after),
        "fingerprint": one.fingerprint,
    }  # fmt: skip


def read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_PEM + 1)


def untarred(data: bytes) -> bytes:
    """The files in a tar, one after the other; data that is no tar is returned unchanged."""
    if data[257:262] != b"ustar":
        return data
    import io
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found = [tar.extractfile(member) for member in tar if member.isfile() and member.size <= MAX_PEM]
            return b"\n".join(file.read() for file in found if file is not None)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Rejected("The tar that was given cannot be read.", holds="Nothing was changed.") from error
