"""Processes of different apps on one machine: ports, and what a build may connect to (threat rows 28, 46)."""

from __future__ import annotations

import pytest
from host.apps import build, files, live, pushed, until_body
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

METADATA = "169.254.169.254"
SQUAT = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"squatted")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_an_app_that_takes_anothers_port_gets_none_of_its_requests(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "victim", "victim", procfile="web: python main.py --port $PORT\n")
    pushed(laptop, "squatter", "squatter")
    shared_host.write("/usr/local/lib/squat.py", SQUAT)
    sockets = "/run/shipit/victim/v2"
    # The app waits until it is told to bind, so that the squatter certainly comes first.
    waits = f"web: echo $PORT; until [ -e /run/go ]; do sleep 0.1; done; python main.py --port $PORT # {sockets}\n"
    repo.commit({"Procfile": waits, "mark": "new\n"})
    with laptop.load("victim") as load:
        pushing = repo.start_push()
        port = wait_for("the port", lambda: shared_host.sh(f"readlink {sockets}/web.1.port", check=False).out.strip())
        squatter = shared_host.start(f"exec python3 /usr/local/lib/squat.py {port}", user="app-squatter")
        wait_for("the squatter", lambda: shared_host.sh(f"ss -tlnH 'sport = :{port}'").out)
        shared_host.write("/run/go", "")
        result = pushing.wait(300)
    squatter.kill()
    report = load.stop()
    assert result.code == 0, f"the app was not started again with another port: {result}"
    assert report.failed == 0, report
    assert set(report.by_body) <= {"victim", "new"}, "a request reached another app"
    until_body(laptop, "victim", "new")
    given = shared_host.sh(f"readlink {sockets}/web.1.port").out.strip()
    assert given != port, "the app runs on a port that another user has"
    assert live(laptop, "victim") == "v2"


def test_a_build_does_not_reach_the_clouds_credentials(laptop: Client, shared_host: Host) -> None:
    shared_host.sh(f"ip address add {METADATA}/32 dev lo; sysctl -qw kernel.unprivileged_bpf_disabled=1", check=False)
    tries = f"-p IPAddressDeny={METADATA} bash -c 'exec 3<>/dev/tcp/{METADATA}/80'"
    free = shared_host.sh(f"systemd-run -q --pipe --wait bash -c 'exec 3<>/dev/tcp/{METADATA}/80'", check=False)
    assert free.ok, "nothing answers there, so this shows nothing"
    if shared_host.sh(f"systemd-run -q --pipe --wait {tries}", check=False).ok:
        pytest.skip("the kernel of this machine does not enforce IPAddressDeny= (no BPF for control groups)")
    attack = f"import socket\ntry:\n    socket.create_connection(('{METADATA}', 80), 5)\n    print('REACHED')\nexcept OSError as e:\n    print('kept out', e)\n"
    repo = laptop.repo("cloudy", {**files("cloudy", shipit_yml=build("python3 attack.py")), "attack.py": attack})
    result = repo.push()
    assert result.code == 0, str(result)
    assert "kept out" in result.err and "REACHED" not in result.err, result.err
