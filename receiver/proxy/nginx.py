"""Makes nginx follow the ledger: one file for each app, a check of the whole configuration, a confirmed reload; if one
of these fails, the old files are restored.

Only changes of names, of the number of web processes, and a stop need this; a release goes live without it
(docs/proxy.md).
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from receiver.engines import all as engines
from receiver.errors import HostFault, as_root
from receiver.ledger.ledger import Ledger
from receiver.model import AppState, Release
from receiver.names import AppName
from receiver.paths import PREFIX, Layout, share
from receiver.proxy import certificates, master, snippet
from receiver.proxy.certificates import Secure
from receiver.proxy.vhost import domains, server_conf, tls_conf, vhost
from receiver.settings import Settings
from receiver.system import disk
from receiver.system.run import PATH, run

# The statuses that have an error page.
PAGES = (429, 502, 503, 504)
# The name of the file that all apps share; no app's name begins like this.
SERVER = "_server"
# This file sorts before those of all apps: for unknown names nginx uses the first server of a port.
TLS = "+tls"
# A self-signed certificate, shown for unknown names by an nginx that cannot reject a handshake.
NOBODY = "_nobody.pem"
# The first versions of nginx that have the directives ssl_reject_handshake, keepalive_time and http2.
REJECTS, KEEPS, HTTP2 = (1, 19, 4), (1, 19, 10), (1, 25, 1)
# nginx's default (ngx_core_module, worker_connections).
CONNECTIONS = 512


def apply(layout: Layout, settings: Settings, app: AppName) -> bool:
    """Make nginx serve `app` as its ledger says; True if that took a reload. Repeatable; needs root.

    When it returns, every new connection uses the new configuration. Raises HostFault with nginx's message, and the old
    file is restored; or if nginx does not run: then the new files are valid, and nginx reads them when it starts.
    """
    _make_nobody(layout)
    changed = [_put(layout, path, text) for path, text in _files(layout, settings, app)]
    return _is_read(layout, app, changed=any(changed))


def _make_nobody(layout: Layout) -> None:
    """Make the certificate NOBODY, if this nginx needs it and it is missing."""
    path = layout.nginx / NOBODY
    if version() >= REJECTS or path.exists():
        return
    made = run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "36500",
         "-subj", "/CN=shipit.invalid", "-keyout", "-", "-out", "-"],
    )  # fmt: skip
    disk.write_atomically(path, made.out.encode(), 0o600)


def is_right(layout: Layout, settings: Settings, app: AppName) -> bool:
    """Whether nginx's files for `app` are what its ledger says, and nginx has confirmed them. Changes nothing."""
    return all(
        _content(path) == text and not path.with_suffix(".undo").exists()
        for path, text in _files(layout, settings, app)
    )


def _files(layout: Layout, settings: Settings, app: AppName) -> list[tuple[Path, bytes]]:
    """The files for `app`, in the order in which nginx needs them: path and content."""
    ledger = Ledger(layout.app(app))
    state, release = ledger.state(), ledger.current()
    secure, ipv6 = tls(layout, settings, state, release), has_ipv6()
    own = text(layout, settings, state, release, secure).encode()
    found = [(server_path(layout), server(layout, settings))]
    if own and secure.servers:
        nobody = None if version() >= REJECTS else layout.nginx / NOBODY
        text_of = tls_conf(settings, secure, ipv6=ipv6, nobody=nobody)
        found.append((layout.nginx / f"{TLS}.conf", text_of.encode()))
    return [*found, (layout.app(app).vhost, own)]


def tls(layout: Layout, settings: Settings, state: AppState, release: Release | None) -> Secure:
    """How the app is served by HTTPS."""
    names = domains(state.app, state, release, settings)
    found = certificates.secure(layout.app(state.app), state, release, names, settings)
    return replace(found, http2=version() >= HTTP2) if found.servers else found


def has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()


def version() -> tuple[int, ...]:
    """nginx's version; () if it does not say. Asked once in a process, and again when the program was replaced. Each
    push needs it, so the agent asks while nobody waits."""
    for place in PATH.split(":"):
        with suppress(OSError):
            return _version(Path(place, "nginx").stat().st_ctime_ns)
    return _version(0)


@lru_cache(maxsize=1)
def _version(changed: int) -> tuple[int, ...]:
    """`changed`: the program's time of change, which is part of the cache's key."""
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", run(["nginx", "-v"], check=False).err)
    return tuple(map(int, found.groups())) if found else ()


def server_path(layout: Layout) -> Path:
    """The file that the vhosts of all apps share."""
    return layout.nginx / f"{SERVER}.conf"


def server(layout: Layout, settings: Settings) -> bytes:
    """The content of that file."""
    return server_conf(settings, version()).encode()


def text(
    layout: Layout, settings: Settings, state: AppState, release: Release | None, secure: Secure | None = None
) -> str:
    """The vhost of an app with this state and live release on this machine."""
    if release is not None and () < version() < KEEPS:
        # Without the directive keepalive_time a connection could be kept until it leads to a replaced release.
        release = replace(release, serving=replace(release.serving, keep=False))
    return vhost(
        state.app,
        state,
        release,
        settings,
        layout,
        pages=pages(layout, stopped=state.stopped),
        capacity=capacity(layout),
        ipv6=has_ipv6(),
        secure=tls(layout, settings, state, release) if secure is None else secure,
        hook=layout.hook_socket if layout.app(state.app).has_hook.exists() else None,
        version=version(),
        snippet=snippet.of(layout.app(state.app)),
    )


def remove(layout: Layout, app: AppName) -> bool:
    """Remove the app's vhost; True if that took a reload. Raises as `apply` does."""
    return _is_read(layout, app, changed=_put(layout, layout.app(app).vhost, b""))


def pages(layout: Layout, *, stopped: bool = False) -> dict[int, Path]:
    """The error pages of an app."""
    names = {code: str(code) for code in PAGES} | ({503: "stopped"} if stopped else {})
    return {code: page(layout, name) for code, name in names.items()}


def page(layout: Layout, name: str) -> Path:
    """One of the pages: the administrator's if there is one, else ours.

    Ours by the path through `current`, because nginx keeps the path, and an upgrade moves that link.
    """
    ours = share("templates") / "pages"
    if ours.is_relative_to(PREFIX.parent):
        ours = PREFIX / "share/shipit/templates/pages"
    own = layout.etc / "templates/pages"
    return (own if (own / f"{name}.html").is_file() else ours) / f"{name}.html"


def capacity(layout: Layout) -> int:
    """How many connections each of nginx's workers may have, as its main configuration says."""
    main = (layout.root / "etc/nginx/nginx.conf").read_text(errors="replace")
    found = re.search(r"^[^#\n]*\bworker_connections\s+([0-9]{1,9})\s*;", main, re.MULTILINE)
    return int(found[1]) if found else CONNECTIONS


def _put(layout: Layout, path: Path, new: bytes) -> bool:
    """Replace one of nginx's files (b"": remove it) and have nginx read it, if it runs; True if the file has changed.

    Until the reload is confirmed, `APP.undo` beside it keeps the last configuration that nginx confirmed. If that file
    is found later, there was a crash in between, and the new file is not trusted.
    """
    undo = path.with_suffix(".undo")
    if _content(path) == new and not undo.exists():
        return False
    with disk.locked(layout.nginx / ".lock", wait=True):
        if not undo.exists():
            disk.write_atomically(undo, _content(path), 0o644)
        try:
            _replace(path, new)
            validate(layout)
            if running := master.pid(layout):
                master.reload(layout, running)
        except BaseException:
            _replace(path, undo.read_bytes())
            disk.remove_file(undo)
            raise
        disk.remove_file(undo)
    return True


def _is_read(layout: Layout, app: AppName, *, changed: bool) -> bool:
    """Whether nginx has read a change; raises HostFault if there was a change, and nginx does not run."""
    if changed and not master.pid(layout):
        raise HostFault(
            "nginx does not run.",
            holds=f"The configuration of {app} is valid and is read when nginx starts.",
            hint=engines.hints().start_proxy,
        )
    return changed


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _replace(path: Path, text: bytes) -> None:
    if text:
        disk.write_atomically(path, text, 0o644)
    elif disk.remove_file(path):
        disk.fsync_dir(path.parent)


def validate(layout: Layout) -> None:
    """Run nginx(8) -t on the whole configuration: a mistake in another site's file makes the reload fail, too."""
    tested = run(["nginx", "-t", "-q", "-c", layout.root / "etc/nginx/nginx.conf"], timeout=60, check=False)
    if tested.code:
        raise HostFault(
            "nginx refuses its configuration.",
            holds="The old configuration stays in force.",
            hint=as_root("nginx -t"),
            details=tested.err.strip().splitlines()[-10:],
        )
