"""`plan`: what shipit would render and run for an app, without doing any of it."""

from __future__ import annotations

import shlex

import click

from receiver.cli import out
from receiver.cli.args import RELEASE, app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.errors import Rejected
from receiver.names import AppName


@click.command()
@app_argument
@click.argument("release", type=RELEASE, required=False)
@json_option
@click.pass_obj
def plan(ctx: Context, app: AppName, release: int | None, form: str) -> None:
    """Print the build steps, units and vhost of a release (default: the live one); change nothing.

    \b
    Example: shipit plan blog
    """
    from receiver.engines import all as engines
    from receiver.ops.all import sections
    from receiver.paths import PREFIX
    from receiver.proxy import nginx
    from receiver.runtimes.build import build_plan
    from receiver.runtimes.read import read_manifest
    from receiver.sources.all import source_of

    ledger = ledger_of(ctx, app)
    found = ledger.release(release) if release else ledger.current()
    if found is None or found.origin is None:
        raise Rejected(f"{app} has no release yet.", hint="Look at a tree before its first push: shipit check DIR")
    tree = source_of(ledger.paths, found.origin).tree(found.origin)
    paths = ledger.paths.release(found.number)
    built, _ = build_plan(
        read_manifest(tree, sections()),
        tree,
        slug=paths.slug,
        cache=ledger.paths.cache,
        tools=PREFIX / "bin",
        settings=ctx.settings,
    )
    steps = [*(step for made in built.made for step in made.steps), *built.steps]
    files = engines.here(ctx.layout).files(found)
    files[str(ledger.paths.vhost)] = nginx.text(ctx.layout, ctx.settings, ledger.state(), found)
    if form == "json":
        out.show_json(
            {
                "release": found.name,
                "runtime": built.runtime,
                "steps": [{"title": s.title, "argv": list(s.argv)} for s in steps],
                "files": files,
            }
        )
        return
    out.say(f"# {app} {found.name}: {built.runtime}")
    for step in steps:
        out.say(f"\n# build: {step.title}\n{shlex.join(step.argv)}")
    for name, text in files.items():
        out.say(f"\n# file: {name}\n{text}".rstrip())
