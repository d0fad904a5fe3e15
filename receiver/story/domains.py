"""Which app answers to which name. A name belongs to one app. An app gets a name in two ways: an admin gives it
(`domains:add`), or its shipit.yml asks for it. What shipit.yml asks for has to be approved once. The name is the app's
from the switch to that release on, and is free again when a release without that line is live.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from receiver.errors import Rejected
from receiver.ledger.ledger import Ledger, apps
from receiver.model import AppState, Release
from receiver.names import AppName, Domain
from receiver.paths import Layout
from receiver.proxy import vhost
from receiver.records import Corrupt
from receiver.settings import Settings, default_domain
from receiver.story.context import AppContext
from receiver.system import disk


@contextmanager
def claiming(layout: Layout, app: AppName, wanted: Sequence[Domain], settings: Settings) -> Iterator[None]:
    """Hold the lock over all domains; raises Rejected when another app has one of `wanted`. Nothing is changed."""
    with disk.locked(layout.domains_lock, wait=True):
        for other in apps(layout):
            taken = [name for name in wanted if other != app and name in owned(layout, other, settings)]
            if taken:
                raise Rejected(
                    f"The domain {taken[0]} belongs to {other}.",
                    hint=f"Take it away first: shipit domains:remove {other} {taken[0]}",
                )
        yield


def owned(layout: Layout, app: AppName, settings: Settings) -> set[Domain]:
    """The names that no other app may have: those the app answers at, and its default name even while it is not
    used."""
    ledger = Ledger(layout.app(app))
    return {*vhost.domains(app, ledger.state(), ledger.current(), settings), default_domain(app, settings)}


def keep_default_free(layout: Layout, app: AppName, settings: Settings) -> None:
    """Raise Rejected if another app has been given the default name of a new app `app`."""
    name = default_domain(app, settings)
    for other in apps(layout):
        # An app whose ledger is damaged must not keep others from being made.
        with suppress(Corrupt):
            if other != app and name in owned(layout, other, settings):
                raise Rejected(
                    f"There can be no app {app}: its name {name} belongs to {other}.",
                    hint=f"Choose another name for the app, or take it away: shipit domains:remove {other} {name}",
                )


def approve(
    layout: Layout, ledger: Ledger, wanted: Sequence[Domain], settings: Settings, *, admin: bool = False
) -> tuple[Domain, ...]:
    """The names in `wanted` (of shipit.yml) that the app was not allowed to ask for until now. `admin`: an admin asks.

    Raises Rejected for a name that nobody has approved, or that only `domains:add` can give.
    """
    state = ledger.state()
    known = {*state.domains, *state.approved, default_domain(ledger.app, settings)}
    new = tuple(name for name in dict.fromkeys(wanted) if name not in known)
    patterns = settings.allow_domains.get(ledger.app, "").split() + settings.allow_domains.get("*", "").split()
    for name in new:
        why = special(layout, ledger.app, name, settings)
        if why or not (admin or any(covers(pattern, name) for pattern in patterns)):
            raise Rejected(
                f"shipit.yml asks for the domain {name}, which no admin has approved for {ledger.app}"
                + (f": {why}." if why else "."),
                hint=f"An admin types once: shipit domains:add {ledger.app} {name}",
            )
    return new


def special(layout: Layout, app: AppName, name: Domain, settings: Settings) -> str:
    """Why only `domains:add` can give the app this name; "" for a name that shipit.yml may ask for."""
    bare = name.removeprefix("*.")
    host = os.uname().nodename.lower()
    if covers(name, Domain(settings.domain)) or name == f"*.{settings.domain}":
        return "it is the server's own domain"
    if name.endswith(f".{settings.domain}") and "." not in name.removesuffix(f".{settings.domain}"):
        return "it is the default name of another app"
    if bare in ("localhost", host, host.partition(".")[0]) or bare.endswith(".localhost"):
        return "it is the server itself"
    if bare.replace(".", "").isdigit():
        return "it is an address"
    for other in apps(layout):
        for theirs in owned(layout, other, settings) if other != app else ():
            if name != theirs and (covers(theirs, name) or covers(name, theirs)):
                return f"{theirs} belongs to {other}"
    return ""


def covers(pattern: str, name: str) -> bool:
    """Whether `pattern`, a name or `*.` and a name, matches everything that `name` matches."""
    return name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def approved(state: AppState, more: Sequence[Domain]) -> AppState:
    """The state in which shipit.yml may ask for these names as well."""
    return replace(state, approved=(*state.approved, *(name for name in more if name not in state.approved)))


def settle(context: AppContext, release: Release) -> Release:
    """Check early, before anything is built or started, whether the release can have the names that it asks for.

    A release that is built is refused. One that runs an earlier build must not fail for a name: it goes live without
    it.
    """
    if not release.domains:
        return release
    layout, ledger, settings = context.layout, context.ledger, context.settings
    if release.builds:
        approve(layout, ledger, release.domains, settings)
        with claiming(layout, ledger.app, release.domains, settings):
            return release
    kept = []
    for name in release.domains:
        try:
            approve(layout, ledger, [name], settings)
            with claiming(layout, ledger.app, [name], settings):
                kept.append(name)
        except Rejected as refused:
            context.say.warn(f"{release.name} does not answer at {name}. {refused.message}")
    return release if len(kept) == len(release.domains) else ledger.save(replace(release, domains=tuple(kept)))


@contextmanager
def claimed(context: AppContext, release: Release) -> Iterator[None]:
    """Around the switch: check that the new names of the release belong to no other app, and lock them meanwhile."""
    ledger, settings = context.ledger, context.settings
    state = ledger.state() if release.domains else None
    if state is None or {*release.domains} <= {*vhost.domains(ledger.app, state, ledger.current(), settings)}:
        yield
        return
    with claiming(context.layout, ledger.app, release.domains, settings):
        if new := approve(context.layout, ledger, release.domains, settings):
            ledger.change_state(lambda state: approved(state, new))
        yield
