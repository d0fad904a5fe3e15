"""Not one request is lost, however often something is pushed. SHIPIT_TEST_PUSHES sets how often (default 30);
SHIPIT_TEST_CHANGES how many pushes, rollbacks and scales all kinds of traffic go through (default 3 of each), and
SHIPIT_TEST_SLOW for how many seconds its slow requests and uploads last (default 2)."""

from __future__ import annotations

import os

import pytest
from lab.background import wait_for
from lab.client import Client
from lab.host import Host
from lab.traffic import APP, REQUIREMENTS, Traffic, Wish

from host.apps import asked, busy, pushed, say
from receiver.proxy.vhost import PREPARED

PUSHES = int(os.environ.get("SHIPIT_TEST_PUSHES", "30"))
CHANGES = int(os.environ.get("SHIPIT_TEST_CHANGES", "3"))
SLOW = float(os.environ.get("SHIPIT_TEST_SLOW", "2"))


def test_no_request_is_lost_in_many_pushes_under_constant_load(shared_host: Host, client: Client) -> None:
    repo = pushed(client, "busy", "0")
    with client.load("busy", threads=8, pause=0.01) as load:
        for number in range(1, PUSHES + 1):
            repo.commit({"mark": f"{number}\n"})
            result = repo.push()
            assert result.code == 0, str(result)
            load.wait_for_body(str(number), timeout=30)
    report = load.stop()
    assert report.failed == 0, str(report)
    assert set(report.by_status) == {200}
    assert set(report.by_body) == {str(number) for number in range(PUSHES + 1)}
    for number in range(PUSHES):
        assert report.last[str(number)] < report.first[str(number + 1)] + 0.5, "old and new answers alternate"
    wait_for("the old processes to go", lambda: len(asked(client, "ps", "busy")) == 1)


def test_slow_requests_are_finished_by_the_release_that_took_them(shared_host: Host, client: Client) -> None:
    repo = pushed(client, "slow", "0")
    with client.load("slow", "/slow/1.5", threads=8, keep_alive=False) as load:
        wait_for("requests under way", lambda: load.total >= 8)
        for number in range(1, 4):
            repo.commit({"mark": f"{number}\n"})
            assert repo.push().code == 0
    report = load.stop()
    assert report.failed == 0, str(report)


def test_a_release_is_not_pruned_while_it_finishes_a_request(shared_host: Host, client: Client) -> None:
    """Many pushes are made within one drain, and `keep` counts releases, not requests."""
    repo = pushed(client, "long", "1", shipit_yml="keep: 2\n")

    def push(number: int) -> None:
        repo.commit({"mark": f"{number}\n"})
        repo.push(check=True)

    def slug(number: int) -> bool:
        return shared_host.exists(f"/var/lib/shipit/apps/long/slugs/v{number}")

    push(2)
    with client.load("long", "/slow/12", threads=1, keep_alive=False, timeout=30, pause=60) as load:
        wait_for("the request to be under way", lambda: load.total == 0 and busy(shared_host, "long", 2))
        push(3)
        push(4)
        assert busy(shared_host, "long", 2) and slug(2)
        wait_for("its answer", lambda: load.total)
    assert load.stop().failed == 0, str(load.stop())
    wait_for("its process to go", lambda: not any(row["release"] == "v2" for row in asked(client, "ps", "long")))
    push(5)
    wait_for("it to be pruned", lambda: not slug(2))


QUIET = [
    ("config:set", "steady", "A=1"),
    ("ps:restart", "steady"),
    ("rollback", "steady", "v1"),
    ("deploy", "steady"),
    ("ps:scale", "steady", "web=3"),
    ("ps:scale", "steady", "web=1"),
]
RELOADED = [("domains:add", "more.example"), ("ps:scale", "web=5"), ("ps:scale", "web=1")]


def test_config_changes_restarts_rollbacks_and_scales_lose_none_either(shared_host: Host, client: Client) -> None:
    pushed(client, "steady", "one")
    # Not those that end: the push was the app's first, and nginx was reloaded for it.
    accepting = "pgrep -P $(cat /run/nginx.pid) -f 'worker process$'"
    workers = shared_host.sh(accepting).out
    with client.load("steady", threads=8, pause=0.01) as load:
        for words in QUIET:
            result = say(client, *words)
            assert result.code == 0, str(result)
    report = load.stop()
    assert report.failed == 0, str(report)
    assert shared_host.sh(accepting).out == workers, "nginx was not reloaded"


def test_what_reloads_the_proxy_loses_no_request_on_a_new_connection(shared_host: Host, client: Client) -> None:
    """A reload closes kept connections that are idle; who sends on one just then has to ask again (RFC 9112, 9.3.1)."""
    pushed(client, "firm", "one")
    host = f"firm.{client.domain()}"
    assert say(client, "domains:add", "firm", host).code == 0
    with client.load("firm", threads=8, pause=0.01, keep_alive=False) as load:
        for words in RELOADED:
            result = say(client, words[0], "firm", *words[1:])
            assert result.code == 0, str(result)
        pushed(client, "newcomer", "another app")
    report = load.stop()
    assert report.failed == 0, str(report)


H2 = """server { listen 8443 http2; location / {
    proxy_pass http://127.0.0.1; proxy_http_version 1.1; proxy_set_header Host $host; } }
"""


@pytest.mark.parametrize("connections", [8, 64])
def test_every_kind_of_traffic_comes_through_pushes_rollbacks_and_scales(
    shared_host: Host, client: Client, connections: int
) -> None:
    """SHIPIT_TEST_CHANGES sets how many of each (default 3). Uploads, slow answers, websockets; HTTP/2 is spoken by a
    server in front, as shipit's own vhosts speak HTTP/1.1."""
    app = f"mixed-{connections}"
    shared_host.write("/etc/nginx/conf.d/h2.conf", H2)
    shared_host.sh("nginx -s reload")
    repo = client.repo(
        app,
        {
            "asgi.py": APP.read_text(),
            "requirements.txt": REQUIREMENTS,
            "Procfile": "web: uvicorn asgi:app\n",
            "shipit.yml": f"processes:\n  web:\n    drain: {int(SLOW) + 8}\n",
        },
    )
    assert repo.push().code == 0
    wish = Wish(client.ip, f"{app}.{client.domain()}", h2_port=8443, connections=connections, slow=SLOW, pause=0.1)
    with Traffic(wish) as traffic:
        for number in range(CHANGES):
            repo.commit({"mark": f"{number}\n"})
            repo.push(check=True)
            say(client, "rollback", app, check=True)
            say(client, "ps:scale", app, f"web={(number + 1) % PREPARED + 1}", check=True)
    environments = shared_host.sh(f"find /var/lib/shipit/apps/{app}/slugs -maxdepth 2 -name .venv -type d | wc -l").out
    assert environments.strip() == "1", "releases with the same dependencies have them once on the disk"
    print(traffic.counts)
    assert not traffic.lost, traffic.counts
    again = {kind for kind, count in traffic.counts.items() if count.again}
    assert again <= {"websocket", "http/2"}, traffic.counts
    assert say(client, "apps:destroy", "--force", app).code == 0
