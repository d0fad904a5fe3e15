"""`check`: says on the developer's machine what a push of a directory would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from receiver.cli import out
from receiver.cli.args import json_option
from receiver.cli.main import Context
from receiver.errors import Rejected
from receiver.gate.keys import LOCAL_ADMIN

if TYPE_CHECKING:
    from receiver.client.directory import Directory
    from receiver.manifest import Manifest
    from receiver.model import Check
    from receiver.runtimes.base import BuildPlan

# Beside the files that the runtimes read: if one of these is not in git, the push behaves differently.
_MATTER = ("Procfile", "shipit.yml", "app.json")


@click.command()
@click.argument("directory", default=".")
@json_option
@click.pass_obj
def check(ctx: object, directory: str, form: str) -> None:
    """Check a project (default: this directory) as a push would; needs no server. Exit code 2: the push would be refused.

    \b
    Example: shipit check
    """
    from receiver.client.directory import Directory

    # On a laptop `ctx` is the client's own object, and there is no caller.
    if isinstance(ctx, Context) and ctx.caller is not LOCAL_ADMIN:
        raise Rejected(
            "check looks at files of the machine that it runs on, and over ssh that is the server.",
            holds="Nothing was looked at.",
            hint="On your own machine, in the project, type: shipit check\n"
            "or have the server check a commit without deploying it: git push -o no-deploy REMOTE main",
        )
    try:
        found = examine(Directory(Path(directory)))
    except PermissionError as error:
        raise Rejected(f"{error.filename} cannot be read: a push of it would leave it out.") from None
    if form == "json":
        out.show_json(found)
        return
    for line in tell(found):
        out.say(line)


def examine(tree: Directory) -> dict[str, Any]:
    """What a push finds out before it builds, as JSON-like data; raises Rejected as the push would."""
    from receiver.ops.all import sections
    from receiver.runtimes.all import RUNTIMES
    from receiver.runtimes.build import build_plan
    from receiver.runtimes.read import read_manifest
    from receiver.settings import Settings

    manifest = read_manifest(tree, sections())
    slug = Path("/var/lib/shipit/apps/APP/slugs/vN")
    plan, _ = build_plan(
        manifest, tree, slug=slug, cache=slug.parents[1] / "cache", tools=Path("bin"), settings=Settings()
    )
    matter = [*_MATTER, *(name for runtime in RUNTIMES for name in runtime.reads)]
    missing = [f"{name} is not in git yet: git add {name}" for name in matter if name in tree.uncommitted]
    return _facts(manifest, plan, [*manifest.notices, *missing])


def _facts(manifest: Manifest, plan: BuildPlan, notices: list[str]) -> dict[str, Any]:
    counts = dict(manifest.formation)
    return {
        "runtime": plan.runtime,
        "found": dict(manifest.runtimes),
        "static": manifest.static,
        "assets": dict(manifest.serving.assets),
        "redirects": dict(manifest.serving.redirects),
        "root": manifest.root,
        "build": [step.title for made in plan.made for step in made.steps] + [step.title for step in plan.steps],
        "environment_is_reused": all(made.key for made in plan.made),
        "release_command": manifest.release_command,
        "processes": [
            {
                "type": process.type,
                "count": counts.get(process.type, 0),
                "schedule": process.schedule.said if process.schedule else "",
                "command": process.command,
                "listen": process.listen.value,
                "healthcheck": _asked(process.check),
                "drain": process.drain,
                "memory": process.limits.memory,
                "cpu": process.limits.cpu,
                "tasks": process.limits.tasks,
            }
            for process in manifest.processes
        ],
        "domains": list(manifest.domains),
        "env": dict(manifest.env),
        "build_config": list(manifest.build_config),
        "apt": list(manifest.apt),
        "required": [key for key, _ in manifest.required],
        "storage": [":".join(pair) for pair in manifest.storage],
        "keep": manifest.keep,
        "warm": manifest.warm,
        "notices": notices,
    }


def _asked(check: Check) -> str:
    """A healthcheck in words."""
    limit = f"within {check.timeout} s"
    if check.kind == "http":
        accepted = str(check.status) if check.status else "a status below 500"
        content = f" holding {check.content!a}" if check.content else ""
        return f"GET {check.path} answers {accepted}{content} {limit}"
    if check.kind == "tcp":
        return f"it accepts connections {limit}"
    if check.kind == "command":
        return f"{check.command} exits with 0 {limit}"
    return f"it says READY=1 {limit}" if check.kind == "notify" else f"it stays up for {check.settle} s"


_PLACES = {"socket": "its socket ($SOCKET)", "port": "$PORT", "none": "nothing"}


def tell(found: dict[str, Any]) -> list[str]:
    """The same as lines of text, like a tree."""
    lines = [f"Runtime          {found['runtime']}" + (f" in {found['root']}/" if found["root"] else "")]
    lines += [f"Needs            {name} (a package of Debian, on the server)" for name in found["apt"]]
    lines += [f"Needs            the config var {name}" for name in found["required"]]
    lines += [f"  └─ because of  {what}" for what in found["found"].values() if what]
    lines += [f"Build            {title}" for title in found["build"]]
    if found["release_command"]:
        lines.append(f"Release command  {found['release_command']}")
    if found["static"]:
        lines.append(f"Pages            nginx serves {found['static']}")
    lines += [
        f"Assets           nginx serves {prefix} from {directory}" for prefix, directory in found["assets"].items()
    ]
    lines += [f"Redirect         {source} → {target}" for source, target in found["redirects"].items()]
    for process in found["processes"]:
        when = f"at {process['schedule']}" if process["schedule"] else f"× {process['count']}"
        lines.append(f"Process type     {process['type']} {when}: {process['command']}")
        if process["listen"] != "none":
            lines.append(f"  ├─ listens on  {_PLACES[process['listen']]}")
        limits = [
            f"{key} {process[key]}{unit}"
            for key, unit in (("memory", " MiB"), ("cpu", "%"), ("tasks", ""))
            if process[key]
        ]
        if limits:
            lines.append(f"  ├─ at most     {', '.join(limits)}")
        if not process["schedule"]:
            lines.append(f"  └─ healthy if  {process['healthcheck']}")
    lines += [f"Domain           {name}" for name in found["domains"]]
    lines += [f"Config default   {name}={value}" for name, value in found["env"].items()]
    lines += [f"Data             {pair.partition(':')[0]} at {pair.partition(':')[2]}" for pair in found["storage"]]
    lines += [f"Note             {notice}" for notice in found["notices"]]
    return [*lines, "", "A push would be accepted."]
