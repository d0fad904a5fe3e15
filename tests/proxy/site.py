"""A real nginx with a prefix of its own on a free port of 127.0.0.1, and releases that run behind it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from receiver.ledger.ledger import Ledger
from receiver.model import WEB, AppState, Change, Check, CheckKind, Listen, ProcessType, Release, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.proxy import nginx, vhost
from receiver.proxy.probe import Place
from receiver.settings import Settings

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
BIN = Path(sys.executable).parent
APP = AppName("blog")

COMMANDS: dict[str, list[str | Path]] = {
    "gthread": [BIN / "gunicorn", "wsgi:app", "--worker-class=gthread", "--threads=8", "--workers=2", "-b", "unix:{socket}"],
    "sync": [BIN / "gunicorn", "wsgi:app", "--workers=4", "-b", "unix:{socket}"],
    "uvicorn": [BIN / "uvicorn", "asgi:app", "--uds", "{socket}", "--log-level=warning"],
    "node": ["node", "hello.js", "{socket}"],
    "closes": [sys.executable, "closes.py", "{socket}"],
    "abrupt": [sys.executable, "abrupt.py", "{socket}"],
    "port": [sys.executable, "fronted.py", "{socket}"],
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """One nginx, any number of apps. A context manager: everything it started ends with it."""

    port: int = field(default_factory=free_port)
    # Another program's HTTP/2 (without TLS) before it: shipit's own vhosts speak HTTP/1.1.
    h2_port: int = field(default_factory=free_port)
    running: dict[tuple[str, int, int], subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Site:
        # Short, because a socket's path has 107 bytes (unix(7)).
        self.root = Path(tempfile.mkdtemp(prefix="px", dir="/tmp"))
        self.root.chmod(0o755)
        self.layout = Layout(self.root)
        self.settings = Settings(domain="test", http_port=self.port)
        self.notes = self.root / "notes"
        for made in (self.layout.nginx, self.root / "run", self.root / "logs", self.root / "var/log/nginx"):
            made.mkdir(parents=True)
        self.write_shipit_conf()
        self.write_server_conf()
        (self.root / "etc/nginx/nginx.conf").write_text(
            f"user root; worker_processes 2; pid {self.root}/run/nginx.pid; error_log {self.root}/var/log/nginx/error.log;\n"
            f"events {{ worker_connections 768; }}\n"
            f"http {{ access_log off; client_body_temp_path {self.root}/body; proxy_temp_path {self.root}/temp;\n"
            f"fastcgi_temp_path {self.root}/f; uwsgi_temp_path {self.root}/u; scgi_temp_path {self.root}/s;\n"
            f"server {{ listen 127.0.0.1:{self.h2_port} http2; location / {{ proxy_pass http://127.0.0.1:{self.port};\n"
            f"proxy_http_version 1.1; proxy_set_header Host $host; }} }}\n"
            f"include {self.root}/etc/nginx/shipit.conf; }}\n"
        )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.stop_nginx()
        until(self.removed)

    def removed(self) -> bool:
        """Remove all of it; an app that was told to end may still write a last file there."""
        shutil.rmtree(self.root, ignore_errors=True)
        return not self.root.exists()

    def start_nginx(self) -> None:
        subprocess.run(["nginx", "-p", self.root, "-c", self.root / "etc/nginx/nginx.conf"], check=True)
        until(lambda: connects(self.port))

    def stop_nginx(self) -> None:
        pid_file = self.root / "run/nginx.pid"
        if pid_file.exists():
            master = int(pid_file.read_text())
            os.kill(master, signal.SIGTERM)
            until(lambda: not Path(f"/proc/{master}").exists() or zombie(master))

    def nginx_pid(self) -> int:
        return int((self.root / "run/nginx.pid").read_text())

    def write_shipit_conf(self) -> None:
        conf = vhost.shipit_conf(
            self.settings, self.layout, page=nginx.page(self.layout, "404"), catch_all=True, names_hash=True
        )
        (self.root / "etc/nginx/shipit.conf").write_text(local(conf))

    def write_server_conf(self) -> None:
        nginx.server_path(self.layout).write_bytes(nginx.server(self.layout, self.settings))

    def write_vhost(self, release: Release | None = None, app: AppName = APP, stopped: bool = False) -> None:
        """What receiver.proxy.nginx does, without validation or reload."""
        self.layout.app(app).vhost.write_text(self.vhost(release, app, stopped))

    def vhost(self, release: Release | None = None, app: AppName = APP, stopped: bool = False) -> str:
        state = AppState(app=app, created=0.0, stopped=stopped)
        return local(nginx.text(self.layout, self.settings, state, release))

    def sockets(self, number: int, web: int, app: AppName = APP) -> list[Path]:
        """Where the web processes of a release listen."""
        return [self.layout.app(app).release(number).socket(WEB, index) for index in range(1, web + 1)]

    def spawn(self, number: int, kind: str = "gthread", app: AppName = APP, index: int = 1) -> None:
        """Start one web process of a release and wait until its socket accepts."""
        paths = self.layout.app(app).release(number)
        paths.run_dir.mkdir(parents=True, exist_ok=True)
        paths.dir.mkdir(parents=True, exist_ok=True)
        if not paths.sockets_link.is_symlink():
            paths.sockets_link.symlink_to(paths.run_dir)
        where = paths.socket(WEB, index)
        argv = [str(part).format(socket=where) for part in COMMANDS[kind]]
        environment = {
            **os.environ,
            "SHIPIT_RELEASE": f"v{number}",
            "NOTES": str(self.notes),
            "PYTHONPATH": f"{HERE / 'apps'}:{REPO}",
        }
        log = (self.root / f"logs/{app}-{number}-{index}").open("wb")
        self.running[app, number, index] = subprocess.Popen(
            argv, cwd=HERE / "apps", env=environment, stdout=log, stderr=log, start_new_session=True
        )
        place = Place(paths.run_dir, f"{WEB}.{index}", Listen.SOCKET, os.getuid())
        until(lambda: not place.http("test", "/", 200, "", 1))

    def switch(self, number: int, web: int = 1, app: AppName = APP) -> None:
        """What makes a release live."""
        Ledger(self.layout.app(app)).commit(release(number, web=web, app=app))

    def terminate(
        self, number: int, app: AppName = APP, index: int = 1, how: int = signal.SIGTERM
    ) -> subprocess.Popen[bytes]:
        """Send SIGTERM and return at once; the socket's name goes as the launcher's directory does."""
        process = self.running.pop((app, number, index))
        os.killpg(process.pid, how)
        return process


def release(
    number: int, *, web: int = 1, app: AppName = APP, listen: Listen = Listen.SOCKET, check: Check | None = None
) -> Release:
    process = ProcessType(WEB, "run", listen, check or Check(CheckKind.HTTP))
    return Release(
        app=app, number=number, change=Change.DEPLOY, status=Status.LIVE, by="alice", created=0.0, slug=number,
        processes=(process,), formation=((WEB, web),),
    )  # fmt: skip


def local(text: str) -> str:
    """The rendered text, listening on the loopback interface only."""
    kept = [line for line in text.splitlines(keepends=True) if "listen [::]" not in line]
    return re.sub(r"listen (?=[0-9]+[ ;])", "listen 127.0.0.1:", "".join(kept))


def connects(where: int | Path) -> bool:
    with socket.socket(socket.AF_INET if isinstance(where, int) else socket.AF_UNIX) as probe:
        try:
            probe.connect(("127.0.0.1", where) if isinstance(where, int) else str(where))
        except OSError:
            return False
        return True


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
