"""`init`: writes Procfile and shipit.yml for the project in a directory, as far as its files say."""

from __future__ import annotations

from pathlib import Path

import click

from receiver.cli import out
from receiver.cli.main import Context
from receiver.errors import Rejected
from receiver.gate.keys import LOCAL_ADMIN
from receiver.manifest import Tree


@click.command()
@click.argument("directory", default=".")
@click.option("--from", "source", metavar="WHAT", help="Convert sailor.yml, app.json, kamal, or the path of one.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@click.pass_obj
def init(ctx: object, directory: str, source: str | None, dry_run: bool) -> None:
    """Write Procfile and shipit.yml for the project in a directory (default: this one); files that are there stay.

    \b
    Examples:
      shipit init
      shipit init --from config/deploy.yml
    """
    from receiver.client.directory import Directory

    # On a laptop `ctx` is the client's own object, and there is no caller.
    if isinstance(ctx, Context) and ctx.caller is not LOCAL_ADMIN:
        raise Rejected(
            "init writes into a directory of the machine that it runs on, and over ssh that is the server.",
            holds="Nothing was written.",
            hint="On your own machine, in the project, type: shipit init",
        )
    top = Path(directory)
    tree = Directory(top)
    if source:
        from receiver.cli.init_from import convert

        made = convert(tree, source)
        files, told = made.files(), made.told
    else:
        files, told = files_for(tree), []
    written = {name: text for name, text in files.items() if name not in tree.files()}
    for name in sorted(files.keys() - written.keys()):
        told.append(f"{name} is there already and stays as it is; it would have been:")
        told += [f"    {line}" for line in files[name].splitlines()]
    for name, text in written.items():
        if not dry_run:
            # Follows no link, and replaces no file.
            with (top / name).open("x") as file:
                file.write(text)
        out.say(f"{'Would write' if dry_run else 'Wrote'} {name}:")
        for line in text.splitlines():
            out.say(f"    {line}")
    for line in told:
        out.say(line)
    if not written:
        out.say("Nothing to write: what a push needs is there. See what it makes of it: shipit check")
    elif not dry_run:
        out.say(f"Next: git add {' '.join(written)}; git commit; shipit check; git push HOST:APP main")


def files_for(tree: Tree) -> dict[str, str]:
    """The files to write, by name; raises Rejected, as a push does, for a mistake that only the user can correct."""
    from receiver.manifest import read_files
    from receiver.ops.all import sections
    from receiver.runtimes.all import RUNTIMES
    from receiver.runtimes.read import found_in, read_manifest

    pushed = read_files(tree, sections())
    found = found_in(pushed, RUNTIMES)
    procfile = ""
    try:
        manifest = read_manifest(tree, sections())
    except Rejected:
        example = next(filter(None, (runtime.example(pushed) for runtime, _ in found)), "")
        if pushed.procfile or not example:
            raise
        procfile = f"# Check this line: nothing in the project says how it is started.\n{example}\n"
        wants: list[tuple[str, str]] = []
        static = ""
    else:
        lines = [f"{process.type}: {process.command}" for process in manifest.processes]
        lines += [f"release: {manifest.release_command}"] if manifest.release_command else []
        procfile = "" if pushed.procfile else "".join(f"{line}\n" for line in lines)
        static = manifest.static if not pushed.settings.static else ""
        wants = []
    wants += [pair for runtime, _ in found for pair in runtime.writes(pushed)]
    places = [data if data == place else f"{data}:{place}" for data, place in wants]
    yml = "".join(
        line
        for line in (
            f"static: {static}\n" if static else "",
            f"storage: [{', '.join(places)}]  # written beside the code; kept over releases\n" if places else "",
        )
    )
    files = {"Procfile": procfile} if procfile else {}
    return {**files, "shipit.yml": yml} if yml else files
