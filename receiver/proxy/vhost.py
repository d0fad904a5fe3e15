"""nginx's configuration for one app, as a value. Only parsed names, numbers and shipit's own paths go into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from receiver import names
from receiver.ledger.pool import IDLE, OLDEST
from receiver.model import WEB, AppState, Listen, Release
from receiver.names import AppName, Domain
from receiver.paths import ASSETS, OLDER, ONE, POOLS, PUBLIC, Layout, pool, web_count
from receiver.proxy import forwarded
from receiver.proxy.certificates import PLAIN, Secure
from receiver.proxy.forwarded import DROPPED, networks
from receiver.proxy.snippet import Snippet
from receiver.serving import Serving, twin
from receiver.settings import Settings, default_domain, https_port
from receiver.system.render import render

TEMPLATES = (
    "proxy/app.conf.j2", "proxy/serve.j2", "proxy/server.conf.j2", "proxy/static.j2", "proxy/pass.j2", "proxy/headers.j2",
    "proxy/files.j2", "proxy/assets.j2", "proxy/way.j2",
)  # fmt: skip
# Mozilla's intermediate configuration (5.7), without the finite-field ciphers: nginx offers these only with a DH file.
CIPHERS = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for kind in ("ECDSA", "RSA")
)
HSTS = "Strict-Transport-Security"
# The text is the same for up to so many web processes. Each upstream costs nginx memory: 10 MB for 200 apps.
PREPARED = 4
# How many idle connections to an app each of nginx's workers keeps open.
KEPT = 16
# The part of a worker's connections that one app's requests may use: each request takes two connections.
SHARE = 3 / 8


@dataclass(frozen=True)
class Upstream:
    """The sockets that share the requests; `kept`: connections to them are kept open for the next request."""

    name: str
    sockets: tuple[Path, ...]
    kept: bool


@dataclass(frozen=True)
class Server:
    """A server block: where it listens, for which names. It serves the app, or redirects everything to `redirect`.

    `certificate`: for HTTPS. `http2`: use the directive of that name. `challenges`: the directory that a certificate
    authority is shown.
    """

    listens: tuple[str, ...]
    names: tuple[Domain, ...]
    redirect: str = ""
    certificate: Path | None = None
    http2: bool = False
    challenges: Path | None = None


def vhost(
    app: AppName,
    state: AppState,
    release: Release | None,
    settings: Settings,
    layout: Layout,
    *,
    pages: Mapping[int, Path],
    capacity: int,
    ipv6: bool = True,
    secure: Secure = PLAIN,
    hook: Path | None = None,
    version: tuple[int, ...] = (),
    snippet: Snippet | None = None,
) -> str:
    """The vhost of `app`, or "" for an app that takes no requests (its release has no web process type).

    `release` is the live one; None, or one that only holds config vars, if nothing was shipped yet. The text is the
    same for every number of web processes up to PREPARED, for a release of pages, and before the first release. So
    neither a scale nor a first push needs a reload, which would close the connections that clients of all apps keep
    open. A stopped app answers 503.

    `pages` are the error pages by status. `capacity` is the number of connections that a worker of nginx may have.
    `secure` says how HTTPS is served, `hook` is the socket for the app's webhook, `version` is nginx's, `snippet` has
    the admin's directives. Raises Rejected if the server's own domain is not valid.
    """
    shipped = release if release is not None and release.slug else None
    if shipped is not None and not listens(shipped) and not shipped.static:
        return ""
    web = 1 if shipped is None else shipped.count(WEB)
    counts = [] if state.stopped else sorted({*range(1, PREPARED + 1), max(web, PREPARED)})
    current = layout.app(app).current
    serving = shipped.serving if shipped else Serving()
    answers_at = domains(app, state, release, settings)
    told = {name.lower() for name, _ in serving.headers}
    hsts = secure.hsts if secure.servers and HSTS.lower() not in told else 0
    if snippet:
        serving = replace(serving, headers=(*serving.headers, *snippet.headers()))
    if hsts:
        serving = replace(serving, headers=(*serving.headers, (HSTS, "$shipit_hsts")))
    return render(
        TEMPLATES[0],
        app=app,
        upstreams=[up for count in counts for up in upstreams(app, count, current / "sockets", serving)],
        counts=[(count, current / web_count(count)) for count in counts],
        pools=[(index, current / pool(index)) for index in range(1, POOLS)] if serving.keep else [],
        one=current / ONE,
        directory=current / "sockets",
        public=current / PUBLIC,
        assets=current / ASSETS,
        older=current / OLDER,
        twin=_twin(answers_at, serving),
        passwords=layout.app(app).passwords if state.guarded else "",
        maintenance=layout.app(app).maintenance,
        servers=servers(answers_at, settings, secure, ipv6=ipv6),
        ciphers=CIPHERS,
        hsts=hsts,
        serving=serving,
        snippet=snippet or Snippet(),
        places=places(snippet, serving) if snippet else [],
        connections=most_connections(serving, settings, capacity),
        trusted=networks(settings.trusted_proxies),
        proxy_protocol=settings.proxy_protocol,
        believed=bool(believed(settings)),
        forwarded=reads_forwarded(settings, version),
        client="$shipit_client" if reads_forwarded(settings, version) else "$remote_addr",
        variable=app.replace("-", "_"),
        dropped=DROPPED,
        pages=sorted(pages.items()),
        hook=hook,
        kept=KEPT,
        idle=IDLE,
        oldest=OLDEST,
    )


def most_connections(serving: Serving, settings: Settings, capacity: int) -> int:
    """How many requests and websockets an app may have open at once, if each worker of nginx has `capacity`."""
    return min(serving.connections or settings.connections, int(capacity * SHARE))


def places(snippet: Snippet, serving: Serving) -> list[str]:
    """The locations of the snippet. nginx allows each path once; if the release has the path, the release's counts."""
    taken = {f"{prefix}/" for prefix, _ in serving.assets}
    taken |= {source[:-1] if source.endswith("*") else f"= {source}" for source, _ in serving.redirects}
    return [place for place in snippet.places() if place not in taken]


def _twin(names: tuple[Domain, ...], serving: Serving) -> str:
    """The other form of the canonical name (www or not), which is redirected to it; "" if there is none."""
    other = twin(serving.canonical) if serving.canonical else ""
    return other if other in names and serving.canonical in names else ""


def servers(names: tuple[Domain, ...], settings: Settings, secure: Secure, *, ipv6: bool) -> Sequence[Server]:
    """The server blocks of an app: the only place that decides where nginx listens for it. By HTTP one for the names
    without a certificate and one that sends the others to HTTPS; by HTTPS one for each certificate."""
    http = ports(settings.http_port, words(settings), ipv6=ipv6)
    https = ports(settings.https_port, words(settings, secure), ipv6=ipv6)
    safe = secure.names()
    plain, sent = (tuple(name for name in names if (name in safe) is wanted) for wanted in (False, True))
    found = [
        Server(listens=http, names=plain, challenges=secure.challenges),
        Server(
            listens=http,
            names=sent,
            redirect=f"https://$host{https_port(settings)}",
            challenges=secure.challenges,
        ),
        *(
            Server(listens=https, names=served.names, certificate=served.file, http2=secure.http2)
            for served in secure.servers
        ),
    ]
    return [server for server in found if server.names]


def words(settings: Settings, secure: Secure | None = None) -> str:
    """The words after the port in `listen`; `secure`: for a server that speaks HTTPS."""
    spoken = "" if secure is None else " ssl" if secure.http2 else " ssl http2"
    return spoken + (" proxy_protocol" if settings.proxy_protocol else "")


def believed(settings: Settings) -> tuple[str, ...]:
    """The proxies whose headers about the client are trusted. None with the PROXY protocol: clients could send
    these."""
    return () if settings.proxy_protocol else networks(settings.trusted_proxies)


def reads_forwarded(settings: Settings, version: tuple[int, ...]) -> bool:
    return bool(believed(settings)) and version >= forwarded.JOINS


def ports(port: int, words: str, *, ipv6: bool) -> tuple[str, ...]:
    """The values of `listen` for a port, on all addresses."""
    return (f"{port}{words}", *((f"[::]:{port}{words}",) if ipv6 else ()))


def tls_conf(settings: Settings, secure: Secure, *, ipv6: bool = True, nobody: Path | None = None) -> str:
    """What all vhosts with HTTPS share. Unknown names get no app, and no certificate except `nobody`'s."""
    return render(
        "proxy/tls.conf.j2",
        listens=ports(settings.https_port, words(settings, secure), ipv6=ipv6),
        ciphers=CIPHERS,
        nobody=nobody,
    )


def upstreams(app: AppName, web: int, directory: Path, serving: Serving) -> Sequence[Upstream]:
    """The upstreams for `web` processes: one without kept connections, and one for each pool of kept ones."""
    sockets = tuple(directory / f"{WEB}.{index}.sock" for index in range(1, web + 1))
    pools = [str(index) for index in range(POOLS)] if serving.keep else ["0"]
    return (
        *(Upstream(f"shipit-{app}-{web}-{name}", sockets, serving.keep) for name in pools),
        Upstream(f"shipit-{app}-{web}-new", sockets, kept=False),
    )


def domains(app: AppName, state: AppState, release: Release | None, settings: Settings) -> tuple[Domain, ...]:
    """The names the app answers at: those that an admin gave it, the approved ones of its live release's shipit.yml,
    and APP.DOMAIN of the server unless that was removed. Never empty."""
    asked = release.domains if release is not None else ()
    own = (*state.domains, *(name for name in asked if name in state.approved))
    default = () if own and state.without_default else (names.domain(default_domain(app, settings)),)
    return tuple(dict.fromkeys((*own, *default)))


def shipit_conf(
    settings: Settings, layout: Layout, *, page: Path, catch_all: bool, names_hash: bool, ipv6: bool = True
) -> str:
    """The file that makes nginx read the apps' vhosts; written once, by the installation.

    `catch_all`: unknown names get our 404 even if another site's file sorts before ours; only for an nginx that we
    installed. `names_hash`: set the sizes for long and many names; nginx refuses these directives if they are set
    twice. `page` is the page for an unknown name.
    """
    return render(
        "proxy/shipit.conf.j2",
        port=settings.http_port,
        words=words(settings),
        vhosts=layout.nginx,
        page=page,
        catch_all=catch_all,
        names_hash=names_hash,
        ipv6=ipv6,
    )


def server_conf(settings: Settings, version: tuple[int, ...] = ()) -> str:
    """What the vhosts of all apps share; depends only on the settings and nginx's version."""
    return render(
        TEMPLATES[2],
        trusted=believed(settings),
        forwarded=reads_forwarded(settings, version),
        depth=range(1, forwarded.DEPTH + 1),
        element=forwarded.element,
        addresses=forwarded.addresses,
        said=forwarded.said,
    )


def listens(release: Release) -> bool:
    """Whether the release has a web process type that takes requests, even if none of its processes runs."""
    return any(process.type == WEB and process.listen is not Listen.NONE for process in release.processes)
