"""`python -m benchmarks.serving`: requests/s through shipit's vhost and through one that was written by hand, in turn.

Both are on the same nginx and lead to the same process; wrk asks from outside. Needs wrk (Debian's package).
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import snapshot

from .__main__ import HERE, machine, say
from .machine import Client, Outcome
from .receivers import Shipit, host_name

CONNECTIONS = 16
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "13"), ("Content-Type", "text/plain")])
    return [b"Hello, world\\n"]
"""
ASGI = """
async def app(scope, receive, send):
    headers = [(b"content-length", b"13"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world\\n"})
"""
NODE = """
require("http").createServer((request, response) => {
  response.writeHead(200, { "Content-Length": 13, "Content-Type": "text/plain" });
  response.end("Hello, world\\n");
}).listen(process.argv[2]);
"""
# By app: what it is, its files, and what of the machine it needs.
APPS = {
    "sync": ("gunicorn, two sync workers", "web: gunicorn app:app --workers 2\n", "app.py", WSGI),
    "gthread": (
        "gunicorn, two workers with 8 threads",
        "web: gunicorn app:app --workers 2 --threads 8\n",
        "app.py",
        WSGI,
    ),
    "uvicorn": ("uvicorn", "web: uvicorn app:app --log-level warning\n", "app.py", ASGI),
    "node": ("Node", "web: node server.js $SOCKET\n", "server.js", NODE),
    "port": (
        "the same gunicorn with threads, on `$PORT`",
        "web: gunicorn app:app --workers 2 --threads 8 --bind 127.0.0.1:$PORT\n",
        "app.py",
        WSGI,
    ),
}
# What an operator writes who knows nginx.
HAND = """
upstream hand-{app} {{ server {to}; keepalive 16; }}
server {{
    listen 80;
    server_name {app}.hand.test;
    location / {{
        proxy_pass http://hand-{app};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }}
}}
"""


@dataclass
class Series:
    """What wrk told, round by round: requests/s, and the 99th percentile (ms)."""

    rates: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


def main() -> int:
    words = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description="Requests/s against a vhost by hand."
    )
    words.add_argument("--rounds", type=int, default=10)
    words.add_argument("--seconds", type=int, default=5, help="of each measurement (default: 5)")
    words.add_argument("--apps", nargs="+", choices=APPS, default=list(APPS))
    words.add_argument("--output", type=Path, default=HERE, help="where serving.md goes")
    chosen = words.parse_args()
    facts = {**machine(), "date": time.strftime("%Y-%m-%d %H:%M"), "load before": f"{os.getloadavg()[0]:.1f}"}
    found: dict[str, tuple[Series, Series]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        shipit = Shipit.install(Client(snapshot.admin_key(), Path(scratch)))
        try:
            if "node" in chosen.apps:
                shipit.server.sh("apt-get -qq update && apt-get -qq install -y nodejs >/dev/null", timeout=300)
            for app in chosen.apps:
                push(shipit, app, Path(scratch) / app).must()
            by_hand(shipit, chosen.apps)
            for app in chosen.apps:
                say(APPS[app][0])
                found[app] = Series(), Series()
                for number in range(chosen.rounds):
                    sides = (f"{app}.hand.test", host_name(app))
                    for side in (0, 1) if number % 2 else (1, 0):
                        ask(shipit.server.ip, sides[side], chosen.seconds, found[app][side])
        finally:
            shipit.server.close()
    text = report(found, {**facts, "load after": f"{os.getloadavg()[0]:.1f}"})
    (chosen.output / "serving.md").write_text(text)
    print(text)
    return 0


def push(shipit: Shipit, app: str, where: Path) -> Outcome:
    """Make the app live."""
    what, procfile, name, code = APPS[app]
    say(f"push: {what}")
    where.mkdir()
    (where / "Procfile").write_text(procfile)
    (where / name).write_text(code)
    if name == "app.py":
        (where / "requirements.txt").write_text("uvicorn==0.34.0\n" if app == "uvicorn" else "gunicorn==23.0.0\n")
    else:
        (where / "package.json").write_text('{"name": "hello", "private": true}\n')
    for line in ("init -qb main", "add -A", "commit -qm hello"):
        shipit.client.call("git", *line.split(), cwd=where).must()
    return shipit.client.call("git", "push", f"{shipit.account}:{app}", "main", cwd=where)


def by_hand(shipit: Shipit, apps: list[str]) -> None:
    """The vhosts of somebody who knows where each app listens: on a port, without shipit's front."""
    text = ""
    for app in apps:
        directory = f"/run/shipit/{app}/v1"
        to = f"unix:{directory}/web.1.sock"
        if app == "port":
            # The link's target is the port (inside/front.py).
            to = f"127.0.0.1:{shipit.server.sh(f'readlink {directory}/web.1.port').out.strip()}"
        text += HAND.format(app=app, to=to)
    shipit.server.write("/etc/nginx/conf.d/hand.conf", text)
    shipit.server.sh("nginx -t -q && systemctl reload nginx && sleep 1")


def ask(ip: str, host: str, seconds: int, into: Series) -> None:
    """Ask as fast as it answers; raises RuntimeError if an answer was not the right one."""
    words = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Host: {host}", f"http://{ip}/"]
    out = subprocess.run(words, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", out), re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    if rate is None or p99 is None or "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{host}:\n{out}")
    into.rates.append(float(rate[1]))
    into.p99.append(float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]])


def report(found: dict[str, tuple[Series, Series]], facts: dict[str, str]) -> str:
    lines = [
        "# Serving",
        "Written by `python -m benchmarks.serving`. Requests/s through a vhost written by hand, with connections that are"
        " kept, and through shipit's; on the same nginx, to the same process, in turn. Medians, in brackets the smallest and"
        " the largest. The ratio is the median of those of each round.",
        "",
        "| app | by hand | shipit | ratio | goal | met | p99 by hand | shipit | ratio | goal | met |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for app, (hand, ours) in found.items():
        rate = statistics.median(b / a for a, b in zip(hand.rates, ours.rates, strict=True))
        p99 = statistics.median(b / a for a, b in zip(hand.p99, ours.p99, strict=True))
        cells = (
            APPS[app][0], spread(hand.rates, 0), spread(ours.rates, 0), f"{rate:.2f}", "≥ 0.95", told(rate >= 0.95),
            spread(hand.p99, 1), spread(ours.p99, 1), f"{p99:.2f}", "≤ 1.1", told(p99 <= 1.1),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)


def spread(numbers: list[float], digits: int) -> str:
    middle, low, high = (f"{n:,.{digits}f}" for n in (statistics.median(numbers), min(numbers), max(numbers)))
    return f"{middle} ({low}–{high})"


def told(met: bool) -> str:
    return "yes" if met else "**no**"


if __name__ == "__main__":
    raise SystemExit(main())
