"""`python -m benchmarks.traffic`: how many requests are lost while an app is pushed, rolled back and scaled. Counts, no
times; all kinds of traffic at once (tests/lab/traffic.py), through the whole chain on a booted machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import snapshot
from tests.lab.traffic import APP, REQUIREMENTS, Count, Counts, Traffic, Wish

from .__main__ import HERE, machine, say
from .machine import Client
from .receivers import Shipit, host_name
from .sample import Sample

NAME = "mixed"
H2_PORT = 8443
# Somebody's own server before shipit's: shipit's vhosts speak HTTP/1.1.
H2 = (
    f"server {{ listen {H2_PORT} http2; location / {{ proxy_pass http://127.0.0.1; proxy_http_version 1.1;"
    " proxy_set_header Host $host; } }\n"
)
SLOW = 20.0
PROCESSES = (3, 1, 4, 2)
KINDS = {
    "kept": "GET, connection kept",
    "close": "GET, a connection each",
    "slow": f"GET that takes {SLOW:g} s",
    "upload": "POST of 2 MiB",
    "trickle": f"POST of 2 MiB, sent over {SLOW:g} s",
    "websocket": "message over a websocket",
    "http/2": "GET by HTTP/2, four at once, through a server in front",
}


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description="Count lost requests.")
    words.add_argument("--changes", type=int, default=100, help="pushes, rollbacks and scales each (default: 100)")
    words.add_argument("--connections", type=int, nargs="+", default=[8, 64])
    words.add_argument("--output", type=Path, default=HERE, help="where traffic.md goes")
    chosen = words.parse_args()
    facts = {**machine(), "date": time.strftime("%Y-%m-%d %H:%M"), "load before": f"{os.getloadavg()[0]:.1f}"}
    found: dict[tuple[int, str], Counts] = {}
    with tempfile.TemporaryDirectory() as scratch:
        client = Client(snapshot.admin_key(), Path(scratch))
        shipit = Shipit.install(client)
        try:
            change = Changes(shipit, Mixed(client, Path(scratch) / "app"))
            change.push()
            shipit.server.write("/etc/nginx/conf.d/h2.conf", H2)
            shipit.server.sh("nginx -s reload")
            for connections in chosen.connections:
                for what in ("push", "rollback", "scale"):
                    say(f"{chosen.changes} times {what} under {connections} connections")
                    found[connections, what] = counted(change, what, chosen.changes, connections)
                    write(chosen.output, found, facts, chosen.changes)
        finally:
            shipit.server.close()
    return 0


def counted(change: Changes, what: str, times: int, connections: int) -> Counts:
    act: Callable[[], None] = getattr(change, what)
    wish = Wish(
        change.shipit.server.ip, host_name(NAME), h2_port=H2_PORT, connections=connections, slow=SLOW, pause=0.1
    )
    with Traffic(wish) as traffic:
        for _ in range(times):
            act()
    return traffic.counts


class Mixed(Sample):
    """The app of tests/lab/traffic.py as a working copy."""

    def __init__(self, client: Client, where: Path) -> None:
        super().__init__(client, where)
        self.create()

    def commit(self) -> str:
        self.code += 1
        (self.where / "asgi.py").write_text(APP.read_text())
        (self.where / "requirements.txt").write_text(REQUIREMENTS)
        (self.where / "Procfile").write_text("web: uvicorn asgi:app\n")
        (self.where / "version").write_text(f"{self.code}\n")
        self.git("add", ".")
        self.git("commit", "-q", "-m", f"Version {self.code}")
        return ""


class Changes:
    """What is done to the app. A rollback goes to and fro between two releases."""

    def __init__(self, shipit: Shipit, sample: Sample) -> None:
        self.shipit, self._sample = shipit, sample
        self._scaled = 0

    def push(self) -> None:
        self._sample.commit()
        self.shipit.push(self._sample, NAME).must()

    def rollback(self) -> None:
        number = int(self._command(f"releases {NAME} -n 1 --format json").partition('"release": "v')[2].split('"')[0])
        self._command(f"rollback {NAME} v{number - 1}")

    def scale(self) -> None:
        self._scaled += 1
        self._command(f"ps:scale {NAME} web={PROCESSES[self._scaled % len(PROCESSES)]}")

    def _command(self, words: str) -> str:
        return self.shipit.client.ssh(self.shipit.account, words).must().said


def write(where: Path, found: dict[tuple[int, str], Counts], facts: dict[str, str], changes: int) -> None:
    lines = [
        "# Requests lost",
        f"Written by `python -m benchmarks.traffic`. {changes} times each; eight connections are 3 that ask on and on over"
        " a kept connection, one that opens a connection for each request, one slow, one that uploads, one that uploads"
        " slowly, one websocket; 64 are eight times that, and HTTP/2 comes on top. *Again*: the server had closed the"
        " connection without looking at the request, and the client knew (a websocket's close frame, HTTP/2's GOAWAY);"
        " *cut*: of these, websockets that ended without a close frame.",
        "",
        "| connections | change | requests | sent again | cut | **lost** |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (connections, what), counts in found.items():
        whole = [sum(getattr(one, name) for one in counts.values()) for name in ("sent", "again", "cut", "lost")]
        lines.append(f"| {connections} | {what} | {' | '.join(f'{number:,}' for number in whole)} |")
    lines += [
        "",
        "| kind | requests | sent again | cut | **lost** | slowest |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, title in KINDS.items():
        all_of = [counts[kind] for counts in found.values()]
        whole = [sum(getattr(one, name) for one in all_of) for name in ("sent", "again", "cut", "lost")]
        slowest = max(one.slowest for one in all_of)
        lines.append(f"| {title} | {' | '.join(f'{number:,}' for number in whole)} | {slowest:.2f} s |")
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), *reasons(found)]
    (where / "traffic.md").write_text("\n".join(lines) + "\n")


def reasons(found: dict[tuple[int, str], Counts]) -> list[str]:
    """What was lost, and why."""
    lost: list[tuple[str, Count]] = [
        (f"{kind}, {what} under {connections}", count)
        for (connections, what), counts in found.items()
        for kind, count in counts.items()
        if count.lost
    ]
    return [f"- lost, {where}: {count.reasons}" for where, count in lost]


if __name__ == "__main__":
    sys.exit(main())
