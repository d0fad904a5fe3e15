"""`containers:setup`: installs on the server what container images need."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from receiver.cli import out
from receiver.cli.main import Context


@click.command()
@click.pass_obj
def setup(ctx: Context) -> None:
    """Install podman on the server, which builds and runs container images (Debian's packages, by apt).

    The first image, or Dockerfile, that an administrator deploys does the same; this is for a server where other keys
    deploy.

    \b
    Example: shipit containers:setup
    """
    from receiver.story.containers import install
    from receiver.story.submit import tell

    with ctx.connect_agent() as agent:
        new = install(agent, lambda: nullcontext(sys.stderr.fileno()), tell)
    out.say("This server runs container images." if new else "podman is there: this server runs container images.")
