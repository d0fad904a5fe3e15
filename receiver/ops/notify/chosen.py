"""Which ways a message is sent by: those in the server's settings, and those of the app."""

from __future__ import annotations

import secrets
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from receiver import settings
from receiver.errors import Failure, HostFault, Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Release, Status
from receiver.ops.base import kept_as
from receiver.ops.notify.message import Message, message
from receiver.ops.notify.section import KEY, TOLD, Notify, address, event
from receiver.ops.notify.ways import Apprise, Command, Email, Program, Way, Webhook, in_app, send_all, web_address
from receiver.paths import SHIPIT_USER
from receiver.proxy.endpoint import address as address_of_app
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.system.audit import Audit

SERVER_KEYS = frozenset({"on", "webhook", "secret", "command", "email", "apprise", "allow"})


def tell(what: str, ledger: Ledger, release: Release, process: str, how: str) -> None:
    """Send the message to everyone who wants it; failures go to the administrator's log."""
    known = settings.load(ledger.paths.layout.settings)
    told = about(what, ledger, release, known, process=process, how=how)
    for way, _, wrong in send_all(ways_of(ledger, release, known, what), told):
        if wrong:
            Audit("notify").bug(HostFault(f"{release.app} {release.name}, {way}: {' '.join(wrong.lines())}"))


def about(
    what: str, ledger: Ledger, release: Release, known: Settings, *, process: str = "", how: str = "", by: str = ""
) -> Message:
    url = address_of_app(ledger.paths.layout, ledger.state(), ledger.current(), known)
    return message(what, release, url, id=secrets.token_hex(8), time=time.time(), process=process, how=how, by=by)


def ways_of(ledger: Ledger, release: Release, known: Settings, what: str = "") -> list[Way]:
    """The ways of the server and of the app for one event (`""`: any). A mistake in a setting becomes a way, too: it
    raises the error when it is sent."""
    return [*server_ways(known, what), *_of_app(ledger, release, known, what)]


def _of_app(ledger: Ledger, release: Release, known: Settings, what: str) -> list[Way]:
    kept = kept_as(KEY, Notify, release)
    if kept is None and release.status is not Status.LIVE and not release.processes and (live := ledger.current()):
        # It failed before its files were read: use the settings of the live release.
        kept = kept_as(KEY, Notify, live)
    if kept is None or (what and what not in kept.on):
        return []
    found: list[Way] = []
    if kept.webhook:
        found.append(_webhook(kept, ledger, release, known))
    if kept.command:
        found.append(Command(kept.command, ledger))
    if kept.email:
        found.append(Email(kept.email))
    if kept.apprise:
        found.append(in_app(kept.apprise, ledger))
    return found


def server_ways(known: Settings, what: str) -> list[Way]:
    """The ways in /etc/shipit/shipit.yml: texts, with blanks between several. Secret addresses and keys are in files
    that only `shipit` can read, because everybody can read shipit.yml."""
    said = known.notify
    found: list[Way] = []
    try:
        if unknown := sorted(said.keys() - SERVER_KEYS):
            raise Rejected(f"notify: unknown key {unknown[0]!r}.", hint="Known keys: " + ", ".join(sorted(SERVER_KEYS)))
        wanted = [event(word) for word in said.get("on", "").split()] or [told.value for told in TOLD]
        if what and what not in wanted:
            return []
        if "webhook" in said:
            secret = _file(said["secret"]) if "secret" in said else ""
            url = said["webhook"]
            found.append(Webhook(web_address(_file(url) if url.startswith("/") else url), secret, free=True))
        if "command" in said:
            found.append(Program(tuple(shlex.split(said["command"]))))
        if "email" in said:
            found.append(Email(tuple(map(address, said["email"].split()))))
        if "apprise" in said:
            found.append(Apprise(Path(said["apprise"])))
    except (Failure, ValueError) as error:
        found.append(Broken("server", error if isinstance(error, Failure) else Rejected(f"notify: {error}.")))
    return found


@dataclass(frozen=True)
class Broken:
    """A way that cannot be used; sending raises the reason."""

    name: str
    why: Failure

    def send(self, message: Message) -> str:
        raise self.why


def _webhook(kept: Notify, ledger: Ledger, release: Release, known: Settings) -> Way:
    try:
        config = _config(ledger, release)
        for name in filter(None, (kept.webhook, kept.secret)):
            if not config.get(name):
                raise Rejected(
                    f"The config var {name} is not set.", hint=f"shipit config:set {release.app} {name} - < FILE"
                )
        url = web_address(config[kept.webhook].strip())
        secret = config[kept.secret].strip() if kept.secret else ""
        return Webhook(url, secret, allowed=known.notify.get("allow", "").split())
    except Failure as failure:
        return Broken("webhook", failure)


def _config(ledger: Ledger, release: Release) -> dict[str, str]:
    """The config vars of the live release, over its defaults; it may be gone already."""
    with Agent.connect(ledger.paths.layout.agent_socket) as agent:
        held = agent.read_config(release.app, ledger.current_number() or 0)
    return {str(name): value for name, value in (*release.env, *held.items())}


def _file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise HostFault(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or 'no text'}).",
            hint=f"chown {SHIPIT_USER} {path}; chmod 0400 {path}",
        ) from error
