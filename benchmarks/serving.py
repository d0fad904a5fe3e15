"""`python -m benchmarks.serving`: requests/s through shipit's vhost and through one that was written by hand, in turn.

Both are on the same nginx and lead to the same process; wrk asks from outside, and h2load by HTTPS. Needs wrk and
nghttp2-client (Debian's packages).
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
PER_CONNECTION = 900
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
ABOUT = (
    "Requests/s through a vhost written by hand, with connections that are kept, and through shipit's; on the same nginx, to"
    " the same process, in turn. p99 in ms. Medians, in brackets the smallest and the largest. A ratio is the median of those"
    " of each round."
)
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
    "secure": ("uvicorn", "web: uvicorn app:app --log-level warning\n", "app.py", ASGI),
}
# What is measured: the row's name, its app, and how it is asked: by wrk, or with these words by h2load.
ROWS = (
    *((APPS[app][0], app, ()) for app in ("sync", "gthread", "uvicorn", "node", "port")),
    (f"{APPS['secure'][0]}, by HTTPS (HTTP/1.1)", "secure", ("--h1", f"-c{CONNECTIONS}")),
    (f"{APPS['secure'][0]}, by HTTPS, HTTP/2", "secure", (f"-c{CONNECTIONS}", "-m4")),
)
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


# The same for HTTPS, with Mozilla's intermediate settings.
HAND_TLS = """
    listen 443 ssl http2;
    ssl_certificate /etc/ssl/hand.pem;
    ssl_certificate_key /etc/ssl/hand.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:hand:10m;
    ssl_session_tickets off;
"""


@dataclass
class Series:
    """What wrk told, round by round: requests/s, and the 99th percentile (ms)."""

    rates: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


Found = dict[str, tuple[Series, Series]]


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
    found = measure(chosen.apps, chosen.rounds, chosen.seconds)
    text = report(found, {**facts, "load after": f"{os.getloadavg()[0]:.1f}"})
    (chosen.output / "serving.md").write_text(text)
    print(text)
    return 0


def measure(apps: list[str], rounds: int, seconds: int = 5) -> Found:
    """By row, the series through the vhost by hand and through shipit's; on a machine of its own."""
    rows = [row for row in ROWS if row[1] in apps]
    found: Found = {}
    with tempfile.TemporaryDirectory() as scratch:
        shipit = Shipit.install(Client(snapshot.admin_key(), Path(scratch)))
        try:
            if "node" in apps:
                shipit.server.sh("apt-get -qq update && apt-get -qq install -y nodejs >/dev/null", timeout=300)
            for app in apps:
                push(shipit, app, Path(scratch) / app).must()
            by_hand(shipit, apps)
            for name, app, secure in rows:
                say(name)
                found[name] = Series(), Series()
                sides = (f"{app}.hand.test", host_name(app))
                for number in range(rounds):
                    for side in (0, 1) if number % 2 else (1, 0):
                        if secure:
                            ask_safely(shipit.server.ip, sides[side], secure, found[name][side])
                        else:
                            ask(shipit.server.ip, sides[side], seconds, found[name][side])
        finally:
            shipit.server.close()
    return found


def push(shipit: Shipit, app: str, where: Path) -> Outcome:
    """Make the app live."""
    what, procfile, name, code = APPS[app]
    say(f"push: {what}")
    where.mkdir()
    (where / "Procfile").write_text(procfile)
    (where / name).write_text(code)
    if name == "app.py":
        (where / "requirements.txt").write_text("uvicorn==0.34.0\n" if code == ASGI else "gunicorn==23.0.0\n")
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
        mine = HAND.format(app=app, to=to)
        if app == "secure":
            certify(shipit, app)
            mine = mine.replace("    listen 80;\n", HAND_TLS.lstrip("\n"))
        text += mine
    shipit.server.write("/etc/nginx/conf.d/hand.conf", text)
    shipit.server.sh("nginx -t -q && systemctl reload nginx && sleep 1")


def certify(shipit: Shipit, app: str) -> None:
    """A certificate for both names, which both sides use."""
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -days 30 -keyout /root/k -out /root/c"
    names = f"subjectAltName=DNS:{app}.hand.test,DNS:{host_name(app)}"
    shipit.server.sh(f"{made} -addext {names} 2>/dev/null; cat /root/c /root/k >/etc/ssl/hand.pem")
    shipit.server.sh(f"shipit certs:add {app} /root/c /root/k")


def ask_safely(ip: str, host: str, words: tuple[str, ...], into: Series) -> None:
    """The same by HTTPS, by h2load. It does not connect again, and nginx closes a connection after 1,000 requests
    (keepalive_requests), so it asks for fewer than these, and not for a time."""
    with tempfile.NamedTemporaryFile("r") as log:
        # It does not write over a file that is there.
        Path(log.name).unlink()
        asked = [
            "h2load", "-t2", f"-n{CONNECTIONS * PER_CONNECTION}", *words, f"--connect-to={ip}:443",
            f"--log-file={log.name}", f"https://{host}/",
        ]  # fmt: skip
        out = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
        lines = [line.split("\t") for line in Path(log.name).read_text().splitlines()]
        Path(log.name).touch()
    rate, bad = re.search(r", ([\d.]+) req/s", out), re.search(r"(\d+) failed, (\d+) errored", out)
    if rate is None or bad is None or bad.groups() != ("0", "0") or {line[1] for line in lines} != {"200"}:
        raise RuntimeError(f"{host}:\n{out}")
    times = sorted(int(line[2]) for line in lines)
    into.rates.append(float(rate[1]))
    into.p99.append(times[len(times) * 99 // 100] / 1000)


def ask(ip: str, host: str, seconds: int, into: Series) -> None:
    """Ask as fast as it answers; raises RuntimeError if an answer was not the right one."""
    words = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Host: {host}", f"http://{ip}/"]
    out = subprocess.run(words, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", out), re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    if rate is None or p99 is None or "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{host}:\n{out}")
    into.rates.append(float(rate[1]))
    into.p99.append(float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]])


def report(found: Found, facts: dict[str, str]) -> str:
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return f"# Serving\nWritten by `python -m benchmarks.serving`. {ABOUT}\n\n{table(found)}\n\n{told}\n"


def table(found: Found) -> str:
    lines = [
        "| app | by hand | shipit | ratio | goal | met | p99 by hand | shipit | ratio | goal | met |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, (hand, ours) in found.items():
        rate = statistics.median(b / a for a, b in zip(hand.rates, ours.rates, strict=True))
        p99 = statistics.median(b / a for a, b in zip(hand.p99, ours.p99, strict=True))
        cells = (
            name, spread(hand.rates, 0), spread(ours.rates, 0), f"{rate:.2f}", "≥ 0.95", told(rate >= 0.95),
            spread(hand.p99, 1), spread(ours.p99, 1), f"{p99:.2f}", "≤ 1.1", told(p99 <= 1.1),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(numbers: list[float], digits: int) -> str:
    middle, low, high = (f"{n:,.{digits}f}" for n in (statistics.median(numbers), min(numbers), max(numbers)))
    return f"{middle} ({low}–{high})"


def told(met: bool) -> str:
    return "yes" if met else "**no**"


if __name__ == "__main__":
    raise SystemExit(main())
