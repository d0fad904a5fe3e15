"""The last lines of an installation: what to type next, and what may still prevent it from working."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.errors import Failure, as_root
from receiver.gate.keys import Key, Keyring
from receiver.ledger.ledger import apps
from receiver.paths import SHIPIT_USER, Layout
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.setup import ssh
from receiver.setup.report import Step
from receiver.system import firewall
from receiver.system.address import moved, primary_address


def tell(layout: Layout, known: Settings, taken: Sequence[Key], *, seconds: float, demo: bool) -> None:
    """Print these lines. `taken` are the keys that this run was given or found."""
    print(f"\nshipit is ready ({seconds:.1f} s).")
    for key in taken:
        print(f"  key {key.name}  {key.fingerprint}  {key.role.value}")
    if not demo:
        for line in next_steps(layout, known):
            print(line)
    blocked = ssh.locked_out()
    if blocked:
        print(f" !     {blocked}")
    leads, now = moved(known.domain)
    if leads:
        print(
            f" !     Apps answer below {known.domain}, which leads to {leads}: not an address of this machine any more."
        )
        print(f" !     (Have them answer here: ./install.sh --domain {now})")
    for port in (known.http_port, *((known.https_port,) if known.auto_tls else ())):
        if opening := firewall.blocks(port, layout.root):
            print(f" !     A firewall of this machine keeps requests from port {port}.")
            print(f" !     (Let them in: {as_root(opening)})")


def follow_settings(layout: Layout, step: Step) -> None:
    """Have nginx answer at every app's address as the settings say now: a domain or port may be another one. An app that
    cannot follow is named; the others do."""
    with Agent.connect(layout.agent_socket) as agent:
        for app in apps(layout):
            try:
                agent.proxy(app)
            except Failure as failure:
                step.did(f"{app} stays at its old address ({failure.message})")
            else:
                step.did(app)


def next_steps(layout: Layout, known: Settings) -> list[str]:
    """What the administrator types next."""
    lines = []
    if not Keyring(layout).all():
        lines += [
            "",
            "Nobody may push yet: no public key was given, and neither root nor whoever called sudo has one. Add yours:",
            "  shipit ssh-keys:add NAME < id_ed25519.pub     or     ./install.sh --key id_ed25519.pub",
        ]
    lines += ["", "Next, in a git repository on your own machine:", *(f"  {line}" for line in remote(known))]
    return [*lines, "", "Whether all is well, on this one:", "  shipit doctor"]


def remote(known: Settings) -> list[str]:
    """The two commands that ship a repository here, and where it will answer."""
    host = known.domain if "." in known.domain else primary_address() or "localhost"
    url = f"{SHIPIT_USER}@{host}:APP" if known.ssh_port == 22 else f"ssh://{SHIPIT_USER}@{host}:{known.ssh_port}/APP"
    port = "" if known.http_port == 80 else f":{known.http_port}"
    return [f"git remote add prod {url}", "git push prod main", f"curl http://APP.{known.domain}{port}/"]
