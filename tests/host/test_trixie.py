"""The core path on the other suite: push, failed push, config, rollback, reboot."""

from __future__ import annotations

import http.client
from pathlib import Path

from contract.sources.ways import ByArchive, ByFiles, ByRsync, app
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import MAIN, asked, environment_of, live, pushed, say, until_body, unwell
from host.authority import certificate, connected, found, https, report
from host.test_login import SERVICES, active, check_session


def test_a_login_wakes_gateway_and_agent_on_trixie(trixie_host: Host, client: Client) -> None:
    trixie_host.run("systemctl", "stop", *SERVICES)
    # It begins a session and waits for nobody: what it asks for is answered before anything is started.
    assert client.ssh("nothing").code == 2
    assert all(active(trixie_host, unit) for unit in SERVICES), "the agent too, which this command did not ask"
    check_session(trixie_host)


def test_the_core_path_on_trixie(trixie_host: Host, client: Client) -> None:
    repo = pushed(client, "blog", "one")
    assert client.get("blog").body == "one"
    repo.commit({"mark": "two\n"})
    with client.load("blog", threads=4) as load:
        assert repo.push().code == 0
        load.wait_for_body("two")
        repo.commit({"mark": "three\n", "main.py": "raise SystemExit('broken on purpose')\n"})
        failed = repo.push()
        assert failed.code != 0
        assert "broken on purpose" in failed.remote
        assert say(client, "config:set", "blog", "COLOUR=blue").code == 0
        assert environment_of(client, "blog")["COLOUR"] == "blue"
        assert say(client, "rollback", "blog", "v1").code == 0
    report = load.stop()
    assert report.failed == 0, str(report)
    assert client.get("blog").body == "one"
    assert say(client, "ps:scale", "blog", "web=2").code == 0
    assert say(client, "run", "blog", "sh", "-c", "exit 3").code == 3
    wait_for("two processes, and no old one", lambda: len(asked(client, "ps", "blog")) == 2)
    number = live(client, "blog")
    trixie_host.reboot()
    until_body(client, "blog", "one")
    assert live(client, "blog") == number
    assert unwell(trixie_host) == []


def test_certificates_and_http_2_on_trixie(trixie_host: Host, client: Client, tmp_path: Path) -> None:
    """nginx 1.26 and certbot 4: `http2` is a directive of its own there."""
    authority = found(trixie_host, tmp_path, auto=True)
    repo = pushed(client, "shop", "one")
    wait_for("a certificate", lambda: report(client, "shop")["shop.apps.test"]["certificate"] == "acme", timeout=120)
    assert "All names of shop" in say(client, "tls:enable", "shop", timeout=300).out
    assert "http2 on;" in trixie_host.read("/etc/nginx/shipit/shop.conf")
    with connected(trixie_host, "shop.apps.test", authority, alpn=["h2", "http/1.1"]) as pipe:
        assert (pipe.selected_alpn_protocol(), pipe.version()) == ("h2", "TLSv1.3")
    assert https(trixie_host, "shop.apps.test", authority).body.strip() == "one"
    assert client.get("shop", "/a", host="shop.apps.test").headers["Location"] == "https://shop.apps.test/a"
    before = certificate(trixie_host, "shop.apps.test", authority)["serialNumber"]
    assert say(client, "tls:renew", "shop", timeout=300).ok
    assert certificate(trixie_host, "shop.apps.test", authority)["serialNumber"] != before
    assert "warn" not in trixie_host.sh("nginx -t 2>&1").out
    assert unwell(trixie_host) == []
    # A proxy before it that ends TLS, and says so by Forwarded (nginx reads that from 1.23 on), in a line of its own.
    repo.commit(
        {"main.py": MAIN.replace("MARK)", "f\"{self.headers['X-Real-IP']} {self.headers['X-Forwarded-Proto']}\")")}
    )
    assert repo.push().ok
    proxy = trixie_host.ip.rpartition(".")[0] + ".1"
    trixie_host.sh(f"echo 'trusted_proxies: {proxy}' >>/etc/shipit/shipit.yml; shipit doctor --fix")
    spoofed = ("Forwarded", "for=6.6.6.6;proto=https")
    assert said(trixie_host, ("Forwarded", "for=9.9.9.9")) == (301, "")
    assert said(trixie_host, spoofed, ("Forwarded", "for=9.9.9.9;proto=https")) == (200, "9.9.9.9 https")
    assert said(trixie_host, ("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-Proto", "https"), spoofed) == (
        200,
        "9.9.9.9 https",
    )
    assert "warn" not in trixie_host.sh("nginx -t 2>&1").out


def said(host: Host, *headers: tuple[str, str]) -> tuple[int, str]:
    """What a request by HTTP is answered, with these lines in its header."""
    connection = http.client.HTTPConnection(host.ip, timeout=10)
    connection.putrequest("GET", "/", skip_host=True)
    for name, value in (("Host", "shop.apps.test"), *headers):
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode() if answer.status == 200 else ""


def test_the_client_and_two_sources_on_trixie(trixie_host: Host, client: Client) -> None:
    for kind in (ByFiles, ByRsync, ByArchive):
        way = kind(client, kind.__name__.lower())
        say(client, "apps:create", way.name, check=True)
        for mark in ("one", "two"):
            shipped = way.ship(app(mark))
            assert shipped.code == 0 and client.get(way.name).body.strip() == mark, str(shipped)
        assert way.ship(app("broken")).code != 0 and client.get(way.name).body.strip() == "two"
        assert say(client, "rollback", way.name).code == 0 and client.get(way.name).body.strip() == "one"
        assert {row["source"] for row in asked(client, "releases", way.name)} >= {way.kind}
