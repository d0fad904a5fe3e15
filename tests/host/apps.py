"""Tiny apps to push, and what every test on a host asks of the server. Standard library only: a push takes a second."""

from __future__ import annotations

import json
import shlex
from typing import Any

from lab.background import wait_for
from lab.base import Result
from lab.client import Client, Repo
from lab.host import Host

MAIN = '''\
"""Answers / with the text in `mark`; /env, /who and /slow/SECONDS with what their names say. Ends at once on SIGTERM."""
import http.server
import json
import os
import socket
import socketserver
import sys
import time

MARK = open("mark").read().strip()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path
        if path.startswith("/slow/"):
            time.sleep(float(path.removeprefix("/slow/")))
        who = f"{os.environ['SHIPIT_PROCESS']} {os.environ['SHIPIT_RELEASE']} {os.getpid()}"
        text = {"/env": json.dumps(dict(os.environ)), "/who": who}.get(path, MARK)
        status = int(path.removeprefix("/status/")) if path.startswith("/status/") else 200
        self.answer(status, text)

    def answer(self, status, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self):
        return "nginx"

    def log_message(self, form, *args):
        if "say" in self.path:
            print(MARK, "was asked for", self.path, flush=True)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, where):
        if isinstance(where, str):
            self.address_family = socket.AF_UNIX
        super().__init__(where, Handler)

    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "app", 0


if __name__ == "__main__":
    place = os.environ.get("SOCKET") or ("127.0.0.1", int(os.environ["PORT"]))
    print(MARK, "listens", flush=True)
    Server(place).serve_forever()
'''


def files(mark: str, procfile: str = "web: python main.py --at $SOCKET\n", **more: str | None) -> dict[str, Any]:
    """An app that answers `mark`. Further files by name: `shipit_yml` stands for shipit.yml."""
    named = {name.replace("_yml", ".yml"): text for name, text in more.items()}
    return {"main.py": MAIN, "mark": mark + "\n", "Procfile": procfile, **named}


def say(client: Client, *words: str, check: bool = False, **options: Any) -> Result:
    """`ssh shipit@host WORDS`, each word arriving as it is."""
    return client.ssh(shlex.join(words), check=check, **options)


def asked(client: Client, *words: str) -> Any:
    """What a command answers with `--format json`."""
    return json.loads(say(client, *words, "--format", "json", check=True).out)


def live(client: Client, app: str) -> str:
    """The name of the live release, or nothing."""
    return next(
        (str(row["release"]) for row in asked(client, "releases", app, "-n", "1000") if row["status"] == "live"), ""
    )


def newest(client: Client, app: str) -> dict[str, Any]:
    """The release that was opened last, as the list shows it."""
    found: dict[str, Any] = asked(client, "releases", app)[0]
    return found


def environment_of(client: Client, app: str) -> dict[str, str]:
    """The environment of a running web process."""
    answer = client.get(app, "/env")
    assert answer.status == 200, str(answer)
    found: dict[str, str] = json.loads(answer.body)
    return found


def pushed(client: Client, app: str, mark: str = "one", **more: Any) -> Repo:
    """A repository whose first push is live."""
    repo = client.repo(app, files(mark, **more))
    result = repo.push()
    assert result.code == 0, str(result)
    return repo


def branch_at_server(repo: Repo) -> str:
    """The commit that the server's main is at."""
    return repo.git("ls-remote", "shipit", "refs/heads/main").out.split("\t")[0]


def until_body(client: Client, app: str, text: str, timeout: float = 30) -> None:
    """Wait until the app answers this."""
    wait_for(f"{app} to answer {text!r}", lambda: text == client.get(app).body.strip(), timeout=timeout)


def doctor(host: Host) -> dict[str, Any]:
    """What `shipit doctor` finds, as root; but each machine here is a copy of one that was installed at another address
    of the lab, which is no fault."""
    result = host.run("shipit", "doctor", "--format", "json", check=False)
    assert result.out.startswith("{"), str(result)
    found: dict[str, Any] = json.loads(result.out)
    lab = f"apps answer below {'-'.join(host.ip.split('.')[:3])}-"
    found["findings"] = [one for one in found["findings"] if one["well"] or not one["what"].startswith(lab)]
    return found


def unwell(host: Host) -> list[str]:
    """Everything that `shipit doctor` complains of."""
    return [f"{one['subject']}: {one['what']}" for one in doctor(host)["findings"] if not one["well"]]


def busy(host: Host, app: str, number: int) -> bool:
    """Whether a release has a connection open."""
    listed = host.sh(f"grep -c ' /run/shipit/{app}/v{number}/web.1.sock$' /proc/net/unix", check=False).out
    return int(listed or 0) > 1


def build(command: str) -> str:
    """A shipit.yml whose build does this."""
    return f"build:\n  command: {json.dumps(command)}\n"
