"""nginx's part: one file that includes the apps' vhosts, beside the other sites of this nginx."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from receiver.errors import HostFault, as_root
from receiver.paths import Layout
from receiver.settings import Settings
from receiver.setup.places import Record
from receiver.setup.ports import listener
from receiver.setup.report import Step
from receiver.system import disk
from receiver.system.run import run

# For each worker of nginx. Debian's 768 connections suffice for 384 websockets only, as each needs two, and two files.
CONNECTIONS, FILES = 8192, 20_000
NAME = "zz-shipit.conf"  # sorts last: nginx's default server is the first one that it reads


def config_paths(layout: Layout) -> list[Path]:
    """The places where our file may be."""
    etc = layout.root / "etc/nginx"
    return [etc / "sites-enabled" / NAME, etc / "conf.d" / NAME]


def config_path(layout: Layout) -> Path:
    """Where this nginx looks for sites; raises HostFault if nginx.conf includes neither of the usual directories."""
    main = (layout.root / "etc/nginx/nginx.conf").read_text()
    for path in config_paths(layout):
        if re.search(rf"^\s*include\s+(\S*/)?{re.escape(path.parent.name)}/\*(\.conf)?\s*;", main, re.MULTILINE):
            return path
    raise HostFault(
        "/etc/nginx/nginx.conf includes neither sites-enabled/* nor conf.d/*.conf.",
        holds="nginx was not changed.",
        hint="Put `include /etc/nginx/conf.d/*.conf;` at the end of its http block and run ./install.sh again",
    )


def check_port(port: int) -> None:
    """Raise HostFault if a program other than nginx listens on the proxy's port."""
    other = listener(port)
    if other and other.name != "nginx":
        raise HostFault(
            f"Port {port} is taken by {other}.",
            holds="Nothing was changed but packages.",
            hint="Stop it, or let the proxy listen elsewhere: ./install.sh --http-port 8080",
        )


def configure(layout: Layout, settings: Settings, record: Record, step: Step) -> tuple[bool, Record]:
    """Put our file in place, after nginx has checked it; True if anything changed. On failure the old state is
    restored."""
    from receiver.proxy.nginx import page, server, server_path
    from receiver.proxy.vhost import shipit_conf

    path = config_path(layout)
    path.parent.mkdir(exist_ok=True)
    default = layout.root / "etc/nginx/sites-enabled/default"
    removed = str(default.readlink()) if record.nginx_is_ours and default.is_symlink() else ""
    text = shipit_conf(
        settings,
        layout,
        page=page(layout, "404"),
        catch_all=record.nginx_is_ours,
        names_hash=not _sets_names_hash(layout),
        ipv6=Path("/proc/net/if_inet6").exists(),
    ).encode()
    wanted = {path: text, server_path(layout): server(layout, settings)}
    if record.nginx_is_ours:
        main = layout.root / "etc/nginx/nginx.conf"
        wanted[main] = _as_it_is(main, widened)
    old = {file: file.read_bytes() if file.exists() else None for file in wanted}
    if old == wanted and not removed:
        return False, record
    for file, content in wanted.items():
        disk.write_atomically(file, content, 0o644)
    if removed:
        default.unlink()
    tested = run(["nginx", "-t", "-q"], check=False, timeout=60)
    if tested.code:
        for file, before in old.items():
            if before is None:
                file.unlink()
            else:
                disk.write_atomically(file, before, 0o644)
        if removed:
            default.symlink_to(removed)
        raise HostFault(
            "nginx refuses its configuration with shipit's part in it.",
            holds="The old configuration is back in place.",
            hint=as_root("nginx -t"),
            details=tested.err.strip().splitlines()[-10:],
        )
    step.did(str(path))
    if removed:
        record = replace(record, default_site=removed)
        step.did("Debian's default site removed")
    return True, record


def widened(main: str) -> str:
    """nginx.conf with more worker_connections, if it has fewer; a comment keeps the old number."""
    found = re.search(r"^([ \t]*)worker_connections[ \t]+([0-9]{1,6});[ \t]*$", main, re.MULTILINE)
    if not found or int(found[2]) >= CONNECTIONS or "worker_rlimit_nofile" in main:
        return main
    line = f"{found[1]}worker_connections {CONNECTIONS}; # shipit: was {found[2]}"
    return f"worker_rlimit_nofile {FILES}; # shipit\n{main[: found.start()]}{line}{main[found.end() :]}"


def narrowed(main: str) -> str:
    """nginx.conf as before `widened`; lines that were changed since stay."""
    main = re.sub(r"^worker_rlimit_nofile [0-9]+; # shipit\n", "", main, flags=re.MULTILINE)
    return re.sub(r"worker_connections [0-9]+; # shipit: was ([0-9]+)", r"worker_connections \1;", main)


def _as_it_is(path: Path, change: Callable[[str], str]) -> bytes:
    """The content of a file after the change; the rest of it stays byte by byte, whatever its encoding."""
    return change(path.read_bytes().decode(errors="surrogateescape")).encode(errors="surrogateescape")


def _sets_names_hash(layout: Layout) -> bool:
    """Whether another configuration sets the size of the names' hash; nginx accepts that only once."""
    etc = layout.root / "etc/nginx"
    files = [etc / "nginx.conf", *(etc / "conf.d").glob("*.conf"), *(etc / "sites-enabled").glob("*")]
    return any(
        re.search(r"^\s*server_names_hash_", file.read_text(errors="replace"), re.MULTILINE)
        for file in files
        if file.is_file() and file.name != NAME
    )


def remove(layout: Layout, record: Record, step: Step) -> bool:
    """Remove shipit from nginx, and restore Debian's default site if we removed it; True if anything changed."""
    gone = [path for path in config_paths(layout) if disk.remove_file(path)]
    disk.remove_tree(layout.nginx)
    main = layout.root / "etc/nginx/nginx.conf"
    if main.exists() and (before := _as_it_is(main, narrowed)) != main.read_bytes():
        disk.write_atomically(main, before, 0o644)
        gone.append(main)
    default = layout.root / "etc/nginx/sites-enabled/default"
    if record.default_site and default.parent.is_dir() and not default.is_symlink():
        default.symlink_to(record.default_site)
        step.did("Debian's default site is back")
    for path in gone:
        step.did(f"removed shipit's part of {path}" if path == main else f"removed {path}")
    return bool(gone)
