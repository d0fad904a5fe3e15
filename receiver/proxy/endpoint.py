"""Whether the live release answers its visitors. Before saying "it still serves", its sockets are asked."""

from __future__ import annotations

import pwd
from pathlib import Path

from receiver.ledger.ledger import Ledger
from receiver.model import WEB, AppState, Listen, Release
from receiver.paths import Layout, app_user
from receiver.proxy import certificates
from receiver.proxy.probe import Place
from receiver.proxy.vhost import domains
from receiver.settings import Settings, url

# Connecting to a local socket takes no time; if it takes longer, the app is overloaded (s).
PATIENCE = 0.25
BUSY = "none in time"


def address(layout: Layout, state: AppState, release: Release | None, settings: Settings) -> str:
    """The URL of an app with this release: https if it has a certificate."""
    names = domains(state.app, state, release, settings)
    secure = certificates.secure(layout.app(state.app), state, release, names, settings)
    return url(state.app, names, settings, secure.names())


def takes_requests(release: Release | None) -> bool:
    """Whether the release has pages or processes for visitors; one that only holds config vars has none."""
    return release is not None and (
        bool(release.static)
        or any(process.type == WEB and process.listen is not Listen.NONE for process, _ in release.running())
    )


def unreadable(slug: Path, static: str) -> str:
    """Why nginx could not serve the directory `static` of a slug, tried as a user of its group; "" if it can.

    No user writes in a finished slug, so a path without links keeps none: nginx serves nothing from outside.
    """
    place = slug
    for part in (*static.split("/"), "index.html"):
        place /= part
        try:
            if place.is_symlink():
                return f"{place.relative_to(slug)} is a link, which may lead out of the release"
            if part == "index.html":
                place.open("rb").close()
        except OSError as error:
            return f"{place.relative_to(slug)}: {error.strerror}"
    return ""


def silence(ledger: Ledger, release: Release) -> str:
    """Why none of the release's web processes takes a connection, or its pages cannot be read; "" if all is well."""
    if release.static:
        return unreadable(ledger.paths.release(release.slug).slug, release.static)
    try:
        uid = pwd.getpwnam(app_user(release.app)).pw_uid
    except KeyError:
        return "its user is gone"
    run_dir = ledger.paths.release(release.runs_as).run_dir
    why = ""
    for process, index in release.running():
        if process.type == WEB and process.listen is not Listen.NONE:
            why = Place(run_dir, f"{process.type}.{index}", process.listen, uid).accepts(PATIENCE)
            if why in ("", BUSY):
                return ""
    return why


def still_holds(ledger: Ledger) -> str:
    """What holds after a change failed: the text for a Failure's `holds`."""
    release, state = ledger.current(), ledger.state()
    if release is None:
        return f"{ledger.app} has no live release yet."
    if not release.slug:
        return f"Nothing of {ledger.app} serves yet: {release.name} holds config vars, and visitors get 503."
    if state.stopped:
        return f"{ledger.app} is stopped, with {release.name}."
    if not takes_requests(release):
        return f"{release.name} is still live; nothing of it takes requests."
    if why := silence(ledger, release):
        return f"{release.name} is still live, but does not answer: {why}."
    return f"{release.name} is still serving."
