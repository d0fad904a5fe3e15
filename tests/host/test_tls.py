"""HTTPS by itself: certificates from a real authority (Caddy's, on the host), asked for by Debian's certbot."""

from __future__ import annotations

import json
import socket
import ssl
import time
from pathlib import Path

import pytest
from lab.background import wait_for
from lab.base import Result, run
from lab.client import Client, Load, Repo
from lab.host import Host

from host.apps import asked, doctor, pushed, say, unwell
from host.authority import (
    BOUND,
    BOUND_KEY,
    CREDENTIALS,
    bound,
    certificate,
    connected,
    found,
    https,
    name_server,
    packages,
    report,
    start,
)


@pytest.fixture(scope="module")
def authority(shared_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of an authority that gives certificates for names that lead to the host, as it sees them."""
    return found(shared_host, tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shop(laptop: Client, authority: Path) -> Repo:
    repo = pushed(laptop, "shop", "one")
    result = enabled(laptop, "shop")
    assert result.ok and "shop.apps.test has a certificate" in result.out, result
    return repo


# Of whom the server's settings tell certificates to.
TOLD = "/var/lib/shipit/home/told"


def enabled(client: Client, app: str) -> Result:
    return say(client, "tls:enable", app, timeout=300)


def test_an_app_gets_a_certificate_for_each_name_and_http_leads_to_https(
    shared_host: Host, laptop: Client, shop: Repo, authority: Path
) -> None:
    assert "All names of shop" in enabled(laptop, "shop").out, "nothing is asked for twice"
    assert https(shared_host, "shop.apps.test", authority).body.strip() == "one"
    answer = laptop.get("shop", "/a?b=c", host="shop.apps.test")
    assert (answer.status, answer.headers["Location"]) == (301, "https://shop.apps.test/a?b=c")


def test_the_keys_are_roots_and_who_asks_sees_nothing_of_an_app(shared_host: Host, shop: Repo) -> None:
    keys = "/var/lib/shipit/apps/shop/tls/keys"
    assert shared_host.sh(f"stat -c '%U %a' {keys} {keys}/*").out.splitlines() == ["root 700", "root 600"]
    for user in ("shipit-acme", "shipit", "app-shop", "www-data"):
        assert not shared_host.sh(f"cat {keys}/*", user=user, check=False).ok, user
    assert shared_host.sh("find /var/lib/shipit/acme ! -user shipit-acme").out == ""
    assert shared_host.sh("stat -c %a /var/lib/shipit/acme").out == "700\n"
    ran = shared_host.journal("-u", "shipit-certificate-shop-v1")
    assert "Saving debug log" not in ran
    for path in ("/var/lib/shipit/apps/shop/releases/app.json", "/var/lib/shipit/home/keys.json"):
        assert not shared_host.sh(f"cat {path}", user="shipit-acme", check=False).ok, path


def test_http_2_is_spoken_and_nothing_old_and_no_unknown_name_meets_an_app(
    shared_host: Host, shop: Repo, authority: Path
) -> None:
    with connected(shared_host, "shop.apps.test", authority, alpn=["h2", "http/1.1"]) as pipe:
        assert (pipe.selected_alpn_protocol(), pipe.version()) == ("h2", "TLSv1.3")
    old = ssl._create_unverified_context()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning):
        old.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
    with pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(socket.create_connection((shared_host.ip, 443), 10), server_hostname="shop.apps.test")
    with pytest.raises(ssl.SSLError):
        connected(shared_host, "nobody.test", None)


def test_a_name_that_is_added_later_gets_its_certificate_by_itself(
    shared_host: Host, laptop: Client, shop: Repo, authority: Path
) -> None:
    added = say(laptop, "domains:add", "shop", "shop.test", "shop.127-0-0-1.sslip.io", timeout=300)
    assert added.ok, added
    for name in ("shop.test", "shop.127-0-0-1.sslip.io", "shop.apps.test"):
        assert https(shared_host, name, authority).status == 200
    assert asked(laptop, "status", "shop")["url"] == "https://shop.test"


def test_what_is_refused_is_told_and_not_tried_for_ever(shared_host: Host, laptop: Client, shop: Repo) -> None:
    shared_host.sh(f"echo 'notify: {{on: certificate, command: tee -a {TOLD}}}' >>/etc/shipit/shipit.yml")
    dead = say(laptop, "domains:add", "shop", "dead.test", timeout=300)
    assert not dead.ok
    assert "dead.test has no address" in dead.err
    refused = say(laptop, "domains:add", "shop", "shop.example", timeout=300)
    assert not refused.ok, refused
    assert "ca.test:9443 gives no certificates for this name" in refused.err, refused
    assert "shop.example: " in refused.err and "tls:renew shop" in refused.err, refused
    before = report(laptop, "shop")
    assert before["dead.test"]["failures"] == before["shop.example"]["failures"] == 1
    assert before["dead.test"]["next try"] > time.time() + 600
    # The timer is more patient than a person.
    for _ in range(2):
        shared_host.sh("systemctl start shipit-certificates", check=False, timeout=300)
        told(shared_host)
    assert report(laptop, "shop")["shop.example"]["failures"] == 1
    # Each is told once.
    texts = sorted(one["text"] for one in told(shared_host))
    assert [text.split(": ")[1] for text in texts] == [
        "no certificate for dead.test",
        "no certificate for shop.example",
    ]
    assert {one["url"] for one in told(shared_host)} == {asked(laptop, "status", "shop")["url"]}, texts
    assert {"shop: no certificate for dead.test", "shop: no certificate for shop.example"} <= set(unwell(shared_host))
    assert laptop.get("shop", host="shop.example").status == 200, "it is served by HTTP all the same"
    say(laptop, "domains:remove", "shop", "dead.test", "shop.example", check=True)
    assert not [one for one in unwell(shared_host) if one.startswith("shop:")]


def told(host: Host) -> list[dict[str, str]]:
    """What was told so far, by whoever is telling when this begins."""
    host.sh("systemctl start shipit-certificates-tell", timeout=300)
    found, text = [], host.sh(f"cat {TOLD}", check=False).out
    while text:
        one, end = json.JSONDecoder().raw_decode(text)
        found.append(one)
        text = text[end:]
    return found


def test_a_renewal_loses_no_request_and_a_dead_authority_changes_nothing(
    shared_host: Host, laptop: Client, shop: Repo, authority: Path
) -> None:
    before = certificate(shared_host, "shop.apps.test", authority)["serialNumber"]
    context = ssl.create_default_context(cafile=str(authority))
    with Load(shared_host.ip, host="shop.apps.test", port=443, tls=context, threads=6, pause=0.02) as load:
        load.wait_for_body("one")
        result = say(laptop, "tls:renew", "shop", timeout=300)
        assert result.ok, result
        # The timer does the same: what is due is renewed, and nothing else.
        age(shared_host, "shop.test")
        due = certificate(shared_host, "shop.test", authority)["serialNumber"]
        after = certificate(shared_host, "shop.apps.test", authority)["serialNumber"]
        shared_host.sh("systemctl start shipit-certificates", timeout=300)
        time.sleep(0.5)
    seen = load.stop()
    # nginx closes connections that nobody uses; who was about to use one asks again, as every browser does.
    assert not [one for one in seen.failures if not one.reused], str(seen)
    assert after != before
    assert certificate(shared_host, "shop.test", authority)["serialNumber"] != due
    assert certificate(shared_host, "shop.apps.test", authority)["serialNumber"] == after
    shared_host.sh("systemctl stop ca")
    try:
        dead = say(laptop, "tls:renew", "shop", timeout=300)
        assert not dead.ok and "serves" in dead.err, dead
        assert certificate(shared_host, "shop.apps.test", authority)["serialNumber"] == after
        assert [one for one in unwell(shared_host) if "certificate for" in one]
    finally:
        start(shared_host)
    assert say(laptop, "tls:renew", "shop", timeout=300).ok
    assert not [one for one in unwell(shared_host) if one.startswith("shop:")]


def age(host: Host, name: str, app: str = "shop") -> None:
    """Make the record of a certificate say that it was given long ago, so that it is due."""
    host.write(
        "/root/age.py",
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from receiver.proxy.certificates import Installed; from receiver.records import decode, encode\n"
        "path = Path(sys.argv[1]); known = decode(Installed, path.read_bytes(), 'x')\n"
        "path.write_bytes(encode(replace(known, not_before=1.0)))\n",
    )
    host.sh(f"/usr/lib/shipit/current/bin/python /root/age.py /var/lib/shipit/apps/{app}/tls/acme/{name}.json")


def test_ones_own_certificate_counts_when_it_fits(
    shared_host: Host, laptop: Client, shop: Repo, tmp_path: Path, authority: Path
) -> None:
    good, other = made(tmp_path, "shop.apps.test"), made(tmp_path, "else.test")
    served = certificate(shared_host, "shop.apps.test", authority)["serialNumber"]
    for wrong, why in (
        (good[0] + other[1], "does not belong to the certificate"), (other[0] + other[1], "shop answers at"),
        (good[0], "There is no private key"), ("nonsense", "There is no certificate"),
        (good[0] + other[0] + good[1], "is not signed by"),
    ):  # fmt: skip
        result = say(laptop, "certs:add", "shop", input=wrong)
        assert not result.ok and why in result.err, (why, result)
        assert certificate(shared_host, "shop.apps.test", authority)["serialNumber"] == served
    result = say(laptop, "certs:add", "shop", input=good[0] + good[1])
    assert result.ok, result
    assert https(shared_host, "shop.apps.test", tmp_path / "shop.apps.test.crt").status == 200
    assert https(shared_host, "shop.test", authority).status == 200
    assert report(laptop, "shop")["shop.apps.test"]["certificate"] == "own"
    assert say(laptop, "certs:remove", "shop", timeout=300).ok
    assert https(shared_host, "shop.apps.test", authority).status == 200
    # Dokku's forms: a tar on standard input, and two files on the server.
    tar = laptop.run("tar", "-C", str(tmp_path), "-c", "shop.apps.test.crt", "shop.apps.test.key").out
    assert say(laptop, "certs:add", "shop", input=tar).ok
    shared_host.write("/root/a.crt", good[0])
    shared_host.write("/root/a.key", good[1], 0o600)
    assert shared_host.run("shipit", "certs:add", "shop", "/root/a.crt", "/root/a.key").ok
    say(laptop, "certs:remove", "shop", check=True, timeout=300)


def made(directory: Path, name: str) -> tuple[str, str]:
    """A self-signed certificate for a name, and its key."""
    key, crt = directory / f"{name}.key", directory / f"{name}.crt"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
         "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", crt])  # fmt: skip
    return crt.read_text(), key.read_text()


SECURE = """
import http.server, os, socket, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        safe = self.headers["X-Forwarded-Proto"] == "https"
        data = b"safe"
        self.send_response(200 if safe else 301)
        if not safe:
            self.send_header("Location", "https://" + self.headers["Host"] + self.path)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def address_string(self):
        return "nginx"
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family = socket.AF_UNIX
    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "app", 0
Server(os.environ["SOCKET"], Handler).serve_forever()
"""


def test_an_app_that_wants_https_is_healthy_and_a_push_brings_the_certificate(
    shared_host: Host, laptop: Client, authority: Path
) -> None:
    """auto_tls: nobody asks for a certificate of this app, and the authority is none of those who may see it. Then the
    check must say https, or the app would redirect it."""
    shared_host.sh("echo 'auto_tls: true' >>/etc/shipit/shipit.yml")
    repo = pushed(
        laptop, "other", "x", main_py=None, **{"app.py": SECURE}, procfile="web: python app.py --at $SOCKET\n",
        shipit_yml="proxy: {allow: [10.231.0.0/24]}\n",
    )  # fmt: skip
    wait_for("a certificate", lambda: report(laptop, "other")["other.apps.test"]["certificate"] == "acme", timeout=60)
    repo.commit({"shipit.yml": "tls: {hsts: 3600}\nprocesses: {web: {healthcheck: {path: /, status: 200}}}\n"})
    result = repo.push()
    assert result.ok, result
    assert "is live at https://other.apps.test" in result.remote
    answer = https(shared_host, "other.apps.test", authority)
    assert (answer.status, answer.body, answer.headers["Strict-Transport-Security"]) == (200, "safe", "max-age=3600")


def test_a_wildcard_and_a_host_that_nobody_reaches_are_proved_by_dns(
    shared_host: Host, laptop: Client, authority: Path
) -> None:
    """certbot's plugin for RFC 2136, and a name server that takes changes."""
    name_server(shared_host)
    pushed(laptop, "inner", "one")
    say(laptop, "domains:add", "inner", "inner.test", "*.inner.test", timeout=300)
    say(laptop, "domains:remove", "inner", "inner.apps.test", check=True)
    asked_for = ("tls:enable", "inner", "--dns", "rfc2136", "--dns-wait", "1")
    nothing = say(laptop, *asked_for, input="")
    assert not nothing.ok and "No credentials" in nothing.err, nothing
    missing = say(laptop, *asked_for, input=CREDENTIALS, timeout=300)
    assert not missing.ok and "apt-get install python3-certbot-dns-rfc2136" in missing.err, missing
    packages(shared_host, "python3-certbot-dns-rfc2136")
    wrong = say(laptop, *asked_for, input=CREDENTIALS.replace("c2Vj", "d2Vj"), timeout=300)
    assert not wrong.ok and "inner.test: " in wrong.err, wrong
    result = say(laptop, *asked_for, input=CREDENTIALS, timeout=300)
    assert result.ok, result
    for name in ("inner.test", "any.inner.test"):
        assert https(shared_host, name, authority).body.strip() == "one"
    assert {row["proved by"] for row in report(laptop, "inner").values()} == {"dns-rfc2136"}
    # They are root's, and certbot has them in memory alone.
    secret = "c2VjcmV0LW9mLXRoZS10ZXN0"
    kept = "/var/lib/shipit/apps/inner/tls/secrets/dns"
    assert shared_host.sh(f"stat -c '%U %a' {kept} $(dirname {kept})").out.splitlines() == ["root 600", "root 700"]
    found_in = shared_host.sh(
        f"grep -rls {secret} /var/lib/shipit /etc/shipit /etc/nginx /run /tmp /var/log", check=False
    ).out
    assert found_in.split() == [kept]
    assert secret not in shared_host.journal()
    # The timer renews the same way.
    before = certificate(shared_host, "any.inner.test", authority)["serialNumber"]
    age(shared_host, "*.inner.test", "inner")
    shared_host.sh("systemctl start shipit-certificates", timeout=300)
    assert certificate(shared_host, "any.inner.test", authority)["serialNumber"] != before
    assert not [one for one in unwell(shared_host) if one.startswith("inner:")]
    back = say(laptop, "tls:enable", "inner", "--dns", "none", timeout=300)
    assert "*.inner.test" in str(report(laptop, "inner").keys()) and not shared_host.exists(kept), back


def test_https_can_be_taken_away_again(shared_host: Host, laptop: Client, shop: Repo, authority: Path) -> None:
    say(laptop, "tls:disable", "shop", check=True)
    assert laptop.get("shop").body.strip() == "one"
    with pytest.raises((ssl.SSLError, OSError)):
        connected(shared_host, "shop.apps.test", authority)
    assert enabled(laptop, "shop").ok
    assert laptop.get("shop").status == 301
    say(laptop, "apps:destroy", "--force", "shop", check=True)
    assert not shared_host.exists("/var/lib/shipit/apps/shop")


def test_an_authority_that_wants_an_account_gets_it_and_one_that_has_had_enough_is_left_alone(
    shared_host: Host, laptop: Client, authority: Path, tmp_path: Path
) -> None:
    """External account binding (RFC 8555, 7.3.4), and `rateLimited` with the time that Let's Encrypt names."""
    host, name = shared_host, "bound.apps.test"
    bound(host)
    # Before the push: with `auto_tls` of another test the push itself would ask, and ask the other authority.
    host.sh(
        f"echo 127.0.0.1 {name} >>/etc/hosts; sed -i '/^acme_/d; /^auto_tls/d' /etc/shipit/shipit.yml; "
        f"printf 'acme_directory: {BOUND}\\nacme_email: ops@example.org\\nacme_ca_bundle: /etc/ssl/bound.pem\\n' "
        ">>/etc/shipit/shipit.yml"
    )
    pushed(laptop, "bound", "one")
    without = enabled(laptop, "bound")
    assert not without.ok and "/etc/shipit/acme-eab" in without.err, without
    for key in ("d3Jvbmc", BOUND_KEY):
        host.write("/etc/shipit/acme-eab", f"kid-1 {key}\n", 0o600)
        result = enabled(laptop, "bound")
        assert result.ok == (key == BOUND_KEY), result
    ca = tmp_path / "bound.pem"
    ca.write_text(host.read("/etc/ssl/bound.pem"))
    served = certificate(host, name, ca)["serialNumber"]
    assert "Bound CA" in report(laptop, "bound")[name]["issuer"] and report(laptop, "bound")[name]["failures"] == 0
    # It is time for the next one, and the authority has had enough for three days.
    age(host, name, "bound")
    then = int(time.time()) + 3 * 86400
    named = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(then))
    host.write(
        "/etc/a2c/limited", f"too many certificates (5) already issued in the last 168h0m0s, retry after {named}: see"
    )
    host.sh("systemctl start shipit-certificates", check=False, timeout=300)
    told_of = report(laptop, "bound")[name]
    assert told_of["next try"] == then and "too many certificates" in told_of["why"], told_of
    orders = host.read("/etc/a2c/orders")
    host.sh("systemctl start shipit-certificates", check=False, timeout=300)
    assert host.read("/etc/a2c/orders") == orders, "it was asked again before the time"
    [finding] = [one for one in doctor(host)["findings"] if one["subject"] == "bound" and not one["well"]]
    assert f"the certificate for {name} lasts until" in finding["what"], finding
    assert "too many certificates" in finding["hint"] and "shipit tls:renew bound" in finding["hint"], finding
    assert certificate(host, name, ca)["serialNumber"] == served and https(host, name, ca).body.strip() == "one"
    # An admin who knows better asks at once.
    host.sh("rm /etc/a2c/limited")
    assert say(laptop, "tls:renew", "bound", timeout=300).ok
    assert certificate(host, name, ca)["serialNumber"] != served
