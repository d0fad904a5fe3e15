"""Which certificate serves a name, when one is asked for, and how HTTPS gets into the vhost."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_vhost import BLOG, SETTINGS, STATE, release, same_as_golden

from receiver.ledger.ledger import Ledger
from receiver.model import Https
from receiver.names import Domain
from receiver.ops import tls
from receiver.paths import Layout
from receiver.proxy import certificates, nginx
from receiver.proxy.certificates import Certificates, Installed, Origin, Secure, Served, Try
from receiver.proxy.vhost import tls_conf, vhost
from receiver.records import encode
from receiver.settings import url

DAY = 86400.0
NAME, OTHER = Domain("www.example.org"), Domain("example.org")


def one(origin: Origin = Origin.ACME, *names: str, begin: float = 0.0, days: float = 90) -> Installed:
    return Installed(origin, names or (NAME,), begin, begin + days * DAY, "CN=Test", f"{origin.value:a<64}")


@pytest.fixture
def store(tmp_path: Path) -> Certificates:
    store = Certificates(Layout(tmp_path).app(BLOG))
    for name in ("acme", "tries", "keys"):
        (store.paths.tls / name).mkdir(parents=True)
    return store


def wanting(store: Certificates, now: float, https: Https = Https.ON, *names: Domain) -> list[Domain]:
    return certificates.wanting(store, replace(STATE, https=https), names or (NAME,), SETTINGS, now)


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(store: Certificates) -> None:
    assert wanting(store, 0) == [NAME]
    store.record(NAME).write_bytes(encode(one()))
    assert wanting(store, 59 * DAY) == []
    assert wanting(store, 61 * DAY) == [NAME]
    assert not one().late(70 * DAY) and one().late(76 * DAY)


def test_nobody_is_asked_for_what_nobody_gives(store: Certificates) -> None:
    names = [Domain(name) for name in ("*.example.org", "localhost", "blog.localhost", "10.0.0.1", "nas")]
    assert wanting(store, 0, Https.ON, *names) == []
    assert wanting(store, 0, Https.ON, Domain("blog.10-0-0-1.sslip.io")) != []


def test_only_who_wants_certificates_gets_them(store: Certificates) -> None:
    assert wanting(store, 0, Https.DEFAULT) == wanting(store, 0, Https.OFF) == []
    auto = replace(SETTINGS, auto_tls=True)
    assert certificates.asks(STATE, auto) and not certificates.asks(replace(STATE, https=Https.OFF), auto)


def test_the_admins_own_serves_before_one_that_was_asked_for_until_it_has_expired(store: Certificates) -> None:
    store.record(NAME).write_bytes(encode(one(days=90)))
    store.own_record.write_bytes(encode(one(Origin.OWN, "*.example.org", days=10)))
    assert (found := store.serving(NAME, 9 * DAY)) and found.origin is Origin.OWN
    assert (found := store.serving(NAME, 11 * DAY)) and found.origin is Origin.ACME
    assert store.serving(OTHER, 0) is None
    # Nothing is asked for as long as the admin's own will do.
    assert wanting(store, 9 * DAY) == [] and wanting(store, 11 * DAY) == [] and wanting(store, 70 * DAY) == [NAME]


def test_after_a_failure_it_is_tried_again_ever_more_rarely_but_once_a_day(store: Certificates) -> None:
    tried, pauses = certificates.NEVER, []
    for _ in range(12):
        tried = tried.again(0, "no", limited=False)
        pauses.append(tried.next)
    assert pauses[:4] == [900, 1800, 3600, 7200] and pauses[-1] == DAY
    assert certificates.NEVER.again(0, "too many", limited=True).next == certificates.LIMITED
    store.try_record(NAME).write_bytes(encode(Try(1, 0, 900, "no")))
    assert certificates.patient(store, [NAME], 899) == [] and certificates.patient(store, [NAME], 901) == [NAME]


def rendered(secure: Secure) -> str:
    state = replace(STATE, domains=(NAME, OTHER))
    pages = {502: Path("/pages/502.html")}
    return vhost(BLOG, state, release(), SETTINGS, Layout(), pages=pages, capacity=8192, secure=secure)


def test_https_in_the_vhost() -> None:
    served = Served(Path("/var/lib/shipit/apps/blog/tls/keys/aa.pem"), (NAME, OTHER))
    secure = Secure(Path("/var/lib/shipit/acme-challenges"), (served,), hsts=3600, http2=True)
    same_as_golden("https.conf", rendered(secure))
    older = rendered(replace(secure, http2=False))
    assert "listen 443 ssl http2;" in older and "http2 on;" not in older
    same_as_golden("tls.conf", tls_conf(SETTINGS, secure))


def test_no_line_changes_for_an_app_without_https() -> None:
    plain = rendered(certificates.PLAIN)
    assert "443" not in plain and "acme" not in plain
    assert "acme-challenge" in rendered(Secure(Path("/challenges")))


def test_a_url_says_https_only_where_it_is_served() -> None:
    assert url(BLOG, (NAME, OTHER), SETTINGS, {NAME}) == "https://www.example.org"
    assert url(BLOG, (NAME, OTHER), SETTINGS, {OTHER}) == "http://www.example.org"
    assert url(BLOG, (NAME,), replace(SETTINGS, https_port=8443), {NAME}) == "https://www.example.org:8443"


def test_an_old_nginx_is_told_nothing_that_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu 22.04 has 1.18: no ssl_reject_handshake, no keepalive_time."""
    layout = Layout(tmp_path)
    (tmp_path / "etc/nginx").mkdir(parents=True)
    (tmp_path / "etc/nginx/nginx.conf").write_text("worker_connections 768;\n")
    old, new = (1, 18, 0), (1, 22, 1)
    texts = {}
    for version in (old, new):
        monkeypatch.setattr(nginx, "version", lambda version=version: version)
        texts[version] = nginx.text(layout, SETTINGS, STATE, release(), Secure())
    assert "keepalive_time " in texts[new] and "keepalive_time " not in texts[old]
    nobody = tls_conf(SETTINGS, Secure(http2=False), nobody=Path("/etc/nginx/shipit/_nobody.pem"))
    assert "ssl_reject_handshake" not in nobody and "return 444;" in nobody
    layout.nginx.mkdir()
    monkeypatch.setattr(nginx, "version", lambda: old)
    nginx._make_nobody(layout)
    pem = layout.nginx / nginx.NOBODY
    assert pem.stat().st_mode & 0o777 == 0o600 and "PRIVATE KEY" in pem.read_text() and "CERTIFICATE" in pem.read_text()


def test_a_trouble_with_a_certificate_is_told_once_and_again_when_it_was_well_meanwhile(store: Certificates) -> None:
    layout = store.paths.layout
    layout.settings.parent.mkdir(parents=True)
    layout.settings.write_text("domain: apps.example.org\nauto_tls: true\n")
    ledger = Ledger(store.paths)
    ledger.paths.releases.mkdir()
    ledger.save_state(replace(STATE, domains=(NAME,), without_default=True))
    assert tls.news(ledger) == []
    store.try_record(NAME).write_bytes(encode(Try(1, 1.0, 2.0, "it leads elsewhere")))
    assert tls.news(ledger) == [f"no certificate for {NAME}: it leads elsewhere"] and tls.news(ledger) == []
    # An old one serves, and the next one is not there; then it has expired.
    now = time.time()
    store.record(NAME).write_bytes(encode(one(begin=now - 80 * DAY)))
    [late] = tls.news(ledger)
    assert late.startswith(f"the certificate for {NAME} expires on ") and "there is no next one: it leads" in late
    store.record(NAME).write_bytes(encode(one(begin=now - 91 * DAY)))
    [expired] = tls.news(ledger)
    assert f"the certificate for {NAME} expired on " in expired and tls.news(ledger) == []
    store.try_record(NAME).unlink()
    store.record(NAME).write_bytes(encode(one(begin=now)))
    assert tls.news(ledger) == []
    store.record(NAME).write_bytes(encode(one(begin=now - 80 * DAY)))
    assert len(tls.news(ledger)) == 1
    ledger.save_state(replace(ledger.state(), https=Https.OFF))
    assert tls.news(ledger) == []
