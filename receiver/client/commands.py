"""The commands that run on the laptop; all others run on the server (client/main.py)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from receiver import names
from receiver.cli import out
from receiver.cli.args import DROP_WEB, json_option
from receiver.cli.check import check
from receiver.cli.init import init
from receiver.cli.outcome import outcome
from receiver.errors import Rejected
from receiver.system.run import run as run_program


@dataclass(frozen=True)
class Options:
    """The options before the command."""

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
shipit.add_command(init)


def run(words: Sequence[str], remote: str, app: str) -> int:
    """Run one command; returns its exit code. Failures are printed."""
    return outcome(shipit, list(words) or ["--help"], Options(remote, app))


@shipit.command()
def version() -> None:
    """Print the version of shipit on this machine."""
    from receiver import __version__

    out.say(f"shipit {__version__}")


@shipit.command()
@click.argument("directory", type=click.Path(path_type=Path), default=Path())
@click.option("--list", "list_", is_flag=True, help="Print the files that would be shipped, the largest first.")
@click.option("--dry-run", is_flag=True, help="Say what would be shipped and where to; send nothing.")
@click.option("-m", "--message", default="", help="What the release is called in `releases`.")
@click.option(
    "--image", default="", metavar="IMAGE", help="An image of docker or podman here; else the server fetches it."
)
@click.option("--sha256", default="", metavar="DIGEST", help="The digest that an image of a registry must have.")
@click.option("--fresh", is_flag=True, help="Send all layers of an image.")
@click.option("--drop-web", is_flag=True, help=DROP_WEB)
@json_option
@click.pass_obj
def deploy(options: Options, directory: Path, list_: bool, dry_run: bool, message: str, image: str, sha256: str, fresh: bool,
           drop_web: bool, form: str) -> int:  # fmt: skip
    """Put the files of a directory (default: this one) live, committed or not, and follow the deploy to its end. If you
    name an archive or a package, such as `shipit pack` makes, that file is sent, with its signature if there is one.

    What is shipped: the files that git tracks or does not know yet, but none that it ignores; `artifact` in shipit.yml
    changes that. Only what the server lacks travels. The deploy branch stays where it is.

    \b
    Examples:
      shipit deploy
      shipit deploy --list | head
      shipit deploy site/ -m "the new front page"
      shipit deploy dist/blog-1.2.0.tar.gz
      shipit deploy --image blog:7                 an image of this machine, or of a registry
    """
    one_file = directory.is_file()
    for option, given in {"--list": list_, "--dry-run": dry_run, "--message": bool(message)}.items():
        if given and (image or one_file):
            raise Rejected(f"{option} is for the files of a directory.", holds="Nothing was sent.",
                           hint="What a directory would ship: shipit deploy --dry-run")  # fmt: skip
    if image:
        more = ["--fresh"] * fresh + ["--drop-web"] * drop_web
        return _image(options, "" if directory == Path() else str(directory), image, sha256, more)
    from receiver.client import deploy as story
    from receiver.client.files import select
    from receiver.client.remote import find

    if one_file:
        from receiver.client.send import send

        return send(directory, find(Path.cwd(), options.remote, options.app), drop_web=drop_web)
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
        return story.push(at, server, story.commit(at, selection, base, message), drop_web=drop_web)


def _image(options: Options, app: str, image: str, sha256: str, more: list[str]) -> int:
    """`app` is the one that the command names, as on the server: `deploy APP --image IMAGE`; "" if it names none."""
    from receiver.client import image as sending
    from receiver.client.forward import forward
    from receiver.client.remote import find

    server = find(Path.cwd(), options.remote, options.app)
    server = server.of(server.app or app)
    if app not in ("", server.app):
        raise Rejected(
            f"An image goes to the app {server.app} here, not to {app[:60]!a}.", holds="Nothing was sent.",
            hint=f"To another app: shipit --app NAME deploy --image {image}",
        )  # fmt: skip
    engine = "" if sha256 or "@sha256:" in image else sending.engine_of(image)
    if engine:
        return sending.deploy(server, engine, image, more)
    sys.stderr.write(
        f"-----> Neither docker nor podman has {image} here: the server fetches it\n" if not sha256 else ""
    )
    digest = ["--sha256", sha256] if sha256 else []
    return forward(["deploy", server.app, "--image", image, *digest, *more], options.remote, server.app)


@shipit.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--format", "forms", multiple=True, default=("tar.gz",), show_default=True,
              type=click.Choice(["tar.gz", "tar.zst", "zip", "wheel", "deb", "rpm"]), help="Repeat for more.")  # fmt: skip
@click.option("--name", default="", help="What it is called (default: the project's own name, else the directory's).")
@click.option("--version", "version_", default="", help="Its version (default: what `git describe` makes of the tags).")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write it (default: dist/ in the directory).",
)
@click.option(
    "--depends", multiple=True, metavar="PACKAGE", help="A package that a deb or rpm depends on. Repeat for more."
)
@click.option("--sign", is_flag=True, help="Sign it with an ssh key: FILE.sig, which `shipit deploy FILE` sends along.")
@click.option("--key", default="", help="The key to sign with (default: git's user.signingkey, else the usual one).")
@click.option("--json", "json_", is_flag=True, help="Print what was made as JSON.")
@click.pass_obj
def pack(options: Options, directory: Path, forms: tuple[str, ...], name: str, version_: str, output: Path | None,
         depends: tuple[str, ...], sign: bool, key: str, json_: bool) -> int:  # fmt: skip
    """Make an artifact of the files of a directory, and send nothing. The same files give the same bytes, on any machine.

    The files are those that `shipit deploy` would ship. An archive and a package say which commit they come from,
    whether the files differ from it, and the digest of each file.

    \b
    Examples:
      shipit pack                                blog-1.2.0.tar.gz
      shipit pack --format wheel --sign
      shipit pack --format deb --format rpm --depends libpq5
      shipit deploy dist/blog-1.2.0.tar.gz       put it live
    """
    from receiver.client import pack as packing
    from receiver.client import packages
    from receiver.client.artifact import artifact_of
    from receiver.client.files import select, without
    from receiver.client.forgotten import forgotten
    from receiver.system.disk import write_atomically

    folder = output or directory / "dist"
    if not folder.exists():
        folder.mkdir(parents=True)
        # A directory of artifacts is not shipped, and does not count as a change of the checkout.
        write_atomically(folder / ".gitignore", b"*\n", mode=0o644)
    artifact = artifact_of(without(select(directory), folder), name, version_ or "")
    for module, by in forgotten(artifact.selection).items():
        sys.stderr.write(f" !     {module} is imported by {by}, and is not in it: artifact: {{include: [{module}]}}\n")
    made = []
    for form in dict.fromkeys(forms):
        if form == "wheel":
            path = packages.wheel(artifact, folder)
        elif form in ("deb", "rpm"):
            path = packages.package(artifact, form, folder, depends)
        else:
            path = packing.write(artifact, form, folder)
        signature = packing.sign(path, key) if sign or key else None
        made.append({**artifact.about.encode(), "files": len(artifact.items), "artifact": str(path), "bytes":
                     path.stat().st_size, "sha256": packing.digest(path), "signature": str(signature or "")})  # fmt: skip
    if json_:
        out.show_json(made)
        return 0
    for row in made:
        out.say(f"{row['artifact']}\n  {row['files']} files, {row['bytes'] / 2**10:.1f} KiB, sha256:{row['sha256']}")
    about = artifact.about
    sys.stderr.write(f"-----> {about.name} {about.version}" + (f", from {about.ref}\n" if about.ref else "\n"))
    return 0


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
    is_checkout, app = _in_git(), app_ or options.app
    own = names.app_name(app or Path.cwd().resolve().name) if is_checkout or app else ""
    words = [
        *(("--domain", names.domain(domain)) if domain else ()),
        *(("--http-port", str(http_port)) if http_port else ()),
    ]
    bootstrap.install(host, port, words)
    address = host.rpartition("@")[2]
    url = f"{USER}@{address}:{own}" if not port else f"ssh://{USER}@{address}:{port}/{own}"
    if not is_checkout:
        out.say(f"In the app's checkout: git remote add {name} {url}{'' if own else 'APP'}")
    elif name in remotes(str(Path.cwd())):
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
