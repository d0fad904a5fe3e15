"""The commands that a laptop does itself; everything else goes to the server (client/main.py)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from receiver import names
from receiver.cli import out
from receiver.cli.args import json_option
from receiver.cli.check import check
from receiver.client.say import told
from receiver.errors import Failure, Rejected
from receiver.system.run import run as run_program


@dataclass(frozen=True)
class Options:
    """What was said before the command."""

    remote: str
    app: str


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-r", "--remote", help="The server: a git remote's name, or shipit@HOST[:APP].", expose_value=False)
@click.option("-a", "--app", help="The app, when the remote does not name it.", expose_value=False)
def shipit() -> None:
    """Everything that can be shipped becomes a numbered release. On a laptop; the server is found by the git remote.

    \b
    Examples:
      shipit server:add root@203.0.113.7     make a bare server a receiver, and a remote of this checkout
      shipit deploy                          put what lies here live, committed or not
      shipit releases                        any other command goes to the server:
      shipit logs -t                           shipit help lists them
      shipit rollback
    """


shipit.add_command(check)


def run(words: Sequence[str], remote: str, app: str) -> int:
    """Do one command; returns its exit code. Failures are printed."""
    try:
        result = shipit.main(list(words) or ["--help"], "shipit", standalone_mode=False, obj=Options(remote, app))
        return result if isinstance(result, int) else 0
    except Failure as failure:
        return told(failure)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.exceptions.Abort:
        sys.stderr.write("\n")
        return 130
    except click.UsageError as error:
        usage = error.ctx.command_path if error.ctx else "shipit"
        told(Rejected(error.format_message(), hint=f"How it is used: {usage} --help"))
        return 2


@shipit.command()
def version() -> None:
    """Print the version of shipit on this machine."""
    from receiver import __version__

    out.say(f"shipit {__version__}")


@shipit.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--list", "list_", is_flag=True, help="Print the files that would be shipped, the largest first.")
@click.option("--dry-run", is_flag=True, help="Say what would be shipped and where to; send nothing.")
@click.option("-m", "--message", default="", help="What the release is called in `releases`.")
@json_option
@click.pass_obj
def deploy(options: Options, directory: Path, list_: bool, dry_run: bool, message: str, form: str) -> int:
    """Put what lies in a directory (default: this one) live, committed or not, and follow it to its verdict.

    What is shipped: the files that git tracks or does not know yet, but none that it ignores; `artifact` in shipit.yml
    changes that. Only what the server lacks travels. The deploy branch stays where it is.

    \b
    Examples:
      shipit deploy
      shipit deploy --list | head
      shipit deploy site/ -m "the new front page"
    """
    from receiver.client import deploy as story
    from receiver.client.files import select
    from receiver.client.remote import find

    selection = select(directory)
    if list_:
        sizes = selection.sizes()
        if form == "json":
            out.show_json([{"path": path, "bytes": size} for path, size in sizes.items()])
        else:
            out.table([{"bytes": f"{size:>12,}", "path": path} for path, size in sizes.items()],
                      {"bytes": "       BYTES", "path": "PATH"}, empty="Nothing.")  # fmt: skip
        return 0
    server = find(directory.resolve(), options.remote, options.app)
    base = story.base_of(selection)
    total = sum(selection.sizes().values())
    facts = {
        "files": len(selection.paths),
        "size": f"{total / 2**20:.1f} MiB",
        "from": base.told(),
        "new": ", ".join(sorted(selection.new)[:5]) + (" …" if len(selection.new) > 5 else ""),
        "to": f"{server.app} on {server.host}",
    }
    if dry_run:
        if form == "json":
            out.show_json({**facts, "size": total, "dirty": base.dirty, "base": base.commit})
        else:
            out.fields({name: value for name, value in facts.items() if value})
        return 0
    sys.stderr.write(f"-----> Shipping {facts['files']} files, {facts['size']} ({facts['from']})\n")
    sys.stderr.flush()
    with story.workshop(directory.resolve()) as at:
        return story.push(at, server, story.commit(at, selection, base, message))


@shipit.command("server:add")
@click.argument("server", metavar="USER@HOST[:PORT]")
@click.option("--name", default="prod", show_default=True, help="The git remote's name in this checkout.")
@click.option("--app", "app_", default="", help="The app's name there (default: this directory's).")
@click.option("--domain", default="", help="Apps answer at APP.DOMAIN (default: the server's own name or address).")
@click.option("--http-port", type=click.IntRange(1, 65535), help="Where the proxy listens (default: 80).")
@click.pass_obj
def add_server(options: Options, server: str, name: str, app_: str, domain: str, http_port: int | None) -> int:
    """Make a bare Debian or Ubuntu server a receiver, over ssh as root or as somebody who may sudo; in a checkout, add it
    as a git remote. Repeatable: it also brings a server to this version.

    \b
    Examples:
      shipit server:add root@203.0.113.7
      shipit server:add admin@example.org --domain apps.example.org --name prod
    """
    from receiver.client import bootstrap
    from receiver.client.remote import USER, remotes

    host, port = bootstrap.destination(server)
    own = names.app_name(app_ or options.app or Path.cwd().resolve().name) if _in_git() or app_ else ""
    words = [
        *(("--domain", names.domain(domain)) if domain else ()),
        *(("--http-port", str(http_port)) if http_port else ()),
    ]
    bootstrap.install(host, port, words)
    address = host.rpartition("@")[2]
    url = f"{USER}@{address}:{own}" if not port else f"ssh://{USER}@{address}:{port}/{own}"
    if not own:
        out.say(f"In a checkout: git remote add {name} {url}APP")
    elif name in remotes(Path.cwd()):
        out.say(f"The remote {name} is there already. This one is {url}")
    else:
        run_program(["git", "remote", "add", name, url], env=os.environ)
        out.say(f"Added the remote {name}: {url}\nNow: git push {name} HEAD     or what lies here: shipit deploy")
    return 0


@shipit.command("server:upgrade")
@click.argument("server", metavar="USER@HOST[:PORT]")
def upgrade_server(server: str) -> int:
    """Bring a server to the version of shipit on this machine. Apps go on serving; the version before is kept.

    \b
    Example: shipit server:upgrade root@203.0.113.7
    """
    from receiver.client import bootstrap

    bootstrap.install(*bootstrap.destination(server), [])
    return 0


@shipit.command("server:rollback")
@click.argument("server", metavar="USER@HOST[:PORT]")
def roll_server_back(server: str) -> int:
    """Take the last upgrade of a server back: the version of shipit before it receives again.

    \b
    Example: shipit server:rollback root@203.0.113.7
    """
    from receiver.client import bootstrap

    bootstrap.install(*bootstrap.destination(server), ["--back"])
    return 0


def _in_git() -> bool:
    return not run_program(["git", "rev-parse", "--git-dir"], env=os.environ, check=False).code
