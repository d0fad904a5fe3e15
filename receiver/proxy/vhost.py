"""nginx's configuration for one app, as a value. Only parsed names, numbers and shipit's own paths enter it."""

from __future__ import annotations

from pathlib import Path

from receiver import names
from receiver.model import WEB, AppState, Listen, Release
from receiver.names import AppName, Domain
from receiver.paths import Layout, web_count
from receiver.settings import Settings, default_domain
from receiver.system.render import render

TEMPLATE = "proxy/app.conf.j2"
# nginx's own 1 MiB refuses the first photo somebody uploads.
MAX_BODY = 100
# Up to so many web processes the text is the same. Each costs every request a stat(2), and the square of them memory in
# nginx: for 200 apps 32 MB with 4, 50 MB with 8.
PREPARED = 4


def vhost(
    app: AppName,
    state: AppState,
    release: Release | None,
    settings: Settings,
    layout: Layout,
    *,
    pages: Path,
    ipv6: bool = True,
) -> str:
    """The vhost of `app`, or "" for an app that takes no requests (its release has no web process type).

    `release` is the live one. Its number of web processes makes no difference up to PREPARED, nor does it that nothing
    was shipped yet (None, or a release that only holds config vars): so neither a scale nor a first push needs a
    reload, which would close the connections that clients of all apps keep open. A stopped app answers 503. `pages`
    holds 502.html, 503.html and 504.html.
    Raises Rejected when the server's own domain is not one.
    """
    shipped = release if release is not None and release.slug else None
    if shipped is not None and not listens(shipped):
        return ""
    web = 1 if shipped is None else shipped.count(WEB)
    most = max(web, PREPARED)
    directory = layout.app(app).current / "sockets"
    return render(
        TEMPLATE,
        app=app,
        upstreams=[]
        if state.stopped
        else [(count, layout.app(app).current / web_count(count)) for count in sorted({*range(1, PREPARED + 1), most})],
        sockets=[directory / f"{WEB}.{index}.sock" for index in range(1, most + 1)],
        directory=directory,
        domains=domains(app, state, release, settings),
        port=settings.http_port,
        max_body=MAX_BODY,
        pages=pages,
        ipv6=ipv6,
    )


def domains(app: AppName, state: AppState, release: Release | None, settings: Settings) -> tuple[Domain, ...]:
    """The names the app answers at: those an admin gave it, those its live release asks for as far as they were
    approved, and APP.DOMAIN of the server unless that was taken away. Never empty."""
    asked = release.domains if release is not None else ()
    own = (*state.domains, *(name for name in asked if name in state.approved))
    default = () if own and state.without_default else (names.domain(default_domain(app, settings)),)
    return tuple(dict.fromkeys((*own, *default)))


def shipit_conf(settings: Settings, layout: Layout, *, catch_all: bool, names_hash: bool, ipv6: bool = True) -> str:
    """The file that makes nginx read the apps' vhosts; written once, by the installation.

    `catch_all`: unknown names get our 404 even when another site sorts before us; only for an nginx that we
    installed. `names_hash`: room for long and many names; nginx refuses the directives if they are set twice.
    """
    return render(
        "proxy/shipit.conf.j2",
        port=settings.http_port,
        vhosts=layout.nginx,
        catch_all=catch_all,
        names_hash=names_hash,
        ipv6=ipv6,
    )


def listens(release: Release) -> bool:
    """Whether the release has a web process type that takes requests, however many run."""
    return any(process.type == WEB and process.listen is not Listen.NONE for process in release.processes)
