"""`ssh-keys:*`: who may log in, and what each key may do."""

from __future__ import annotations

import sys
import time

import click

from receiver import names
from receiver.caller import Role
from receiver.cli import out
from receiver.cli.args import Name, json_option
from receiver.cli.given import read_input
from receiver.cli.main import Context
from receiver.errors import Rejected
from receiver.gate.keys import LOCAL_ADMIN, Key, Keyring
from receiver.gate.sessions import cut_off
from receiver.ledger.ledger import Ledger
from receiver.names import AppName, KeyName
from receiver.story.submit import tell

MAX_INPUT = 64 * 1024


@click.command()
@click.argument("name", type=Name("name", names.key_name))
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.DEPLOY.value, show_default=True)
@click.option("--app", "apps", multiple=True, type=Name("app", names.app_name), help="Only this app (repeat for more).")
@click.pass_obj
def add(ctx: Context, name: KeyName, role: str, apps: tuple[AppName, ...]) -> None:
    """Let the public key on standard input log in. Its name then says who did what.

    view reads, deploy changes its apps, admin does everything.

    \b
    Examples:
      ssh prod shipit ssh-keys:add alice --role admin < alice.pub
      ssh prod shipit ssh-keys:add ci-blog --app blog < ci.pub
    """
    if sys.stdin.isatty():
        raise Rejected("The public key comes on standard input.", hint=f"shipit ssh-keys:add {name} < id_ed25519.pub")
    text = read_input(MAX_INPUT, f"shipit ssh-keys:add {name} < id_ed25519.pub").decode(errors="replace")
    key = Keyring(ctx.layout).add(name, text, Role(role), apps or None, time.time)
    for app in apps:
        if not Ledger(ctx.layout.app(app)).exists():
            tell(f"There is no app {app} yet: the key is for it as soon as there is. All apps: shipit apps")
    out.say(f"Added {key.name}: {described(key)}, {key.fingerprint}")


@click.command()
@json_option
@click.pass_obj
def list_keys(ctx: Context, form: str) -> None:
    """List the keys: name, role, apps, fingerprint, since when."""
    keys = Keyring(ctx.layout).all()
    rows = [
        {
            "name": key.name,
            "role": key.role.value,
            "apps": ("all" if key.apps is None else ", ".join(key.apps)) if form == "table" else key.apps,
            "type": key.type,
            "fingerprint": key.fingerprint,
            "added": out.when(key.added) if form == "table" else key.added,
        }
        for key in keys
    ]
    if form == "json":
        out.show_json(rows)
        return
    out.table(
        rows,
        {"name": "NAME", "role": "ROLE", "apps": "APPS", "added": "ADDED", "fingerprint": "FINGERPRINT"},
        empty="There are no keys. Add one: shipit ssh-keys:add NAME --role admin < id_ed25519.pub",
    )


@click.command()
@click.argument("name", metavar="NAME | SHA256:FINGERPRINT")
@click.pass_obj
def remove(ctx: Context, name: str) -> None:
    """Take a key's access away and end its connections and commands. A release that it has begun goes on."""
    ring = Keyring(ctx.layout)
    admins = [key for key in ring.all() if key.role is Role.ADMIN]
    if [key for key in admins if name in (key.name, key.fingerprint)] == admins and ctx.caller is not LOCAL_ADMIN:
        raise Rejected(
            f"{name} is the only admin's key: nobody could add another over ssh.",
            holds="Nothing was changed.",
            hint=f"Add one first: shipit ssh-keys:add NAME --role admin < id_ed25519.pub\n"
            f"or remove it on the server: `shipit ssh-keys:remove {name}`",
        )
    key = ring.remove(name)
    ended = cut_off(ctx.layout, key.fingerprint)
    more = f" {ended} of its commands were ended." if ended > 1 else " One of its commands was ended." if ended else ""
    out.say(f"Removed {key.name} ({key.fingerprint}).{more}")
    if admins == [key]:
        out.say("There is no admin's key any more. Add one here: shipit ssh-keys:add NAME --role admin < KEY.pub")


def described(key: Key) -> str:
    """`deploy for blog, shop`, `admin for all apps`."""
    return f"{key.role.value} for {'all apps' if key.apps is None else ', '.join(key.apps)}"
