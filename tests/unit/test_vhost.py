from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.errors import Rejected
from receiver.model import AppState, Change, Check, CheckKind, Listen, ProcessType, Release, Status, decode_release
from receiver.names import AppName, Domain, TypeName
from receiver.paths import POOLS, PREFIX, Layout
from receiver.proxy.vhost import PREPARED, domains, server_conf, shipit_conf, vhost
from receiver.records import Corrupt, encode
from receiver.serving import Serving
from receiver.settings import Settings

GOLDEN = Path(__file__).resolve().parent.parent / "golden/proxy"
PAGES = {code: PREFIX / f"share/shipit/templates/pages/{code}.html" for code in (429, 502, 503, 504)}
BLOG = AppName("blog")
STATE = AppState(app=BLOG, created=0.0)
SETTINGS = Settings(domain="apps.example.org")


def release(web: int = 1, kind: str = "web", listen: Listen = Listen.SOCKET) -> Release:
    process = ProcessType(TypeName(kind), "run", listen, Check(CheckKind.UPTIME))
    return Release(
        app=BLOG, number=8, change=Change.DEPLOY, status=Status.LIVE, by="alice", created=0.0, slug=8,
        processes=(process,), formation=((process.type, web),),
    )  # fmt: skip


def rendered(state: AppState, live: Release | None, settings: Settings = SETTINGS, ipv6: bool = True) -> str:
    return vhost(BLOG, state, live, settings, Layout(), pages=PAGES, capacity=8192, ipv6=ipv6)


def same_as_golden(name: str, text: str) -> None:
    """UPDATE_GOLDEN=1 writes what is rendered now; read the diff before committing it."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_an_app_answers_at_the_servers_domain_until_it_has_its_own() -> None:
    same_as_golden("one-web.conf", rendered(STATE, release()))


def test_every_domain_is_named() -> None:
    state = replace(STATE, domains=(Domain("example.org"), Domain("*.example.org")))
    same_as_golden("domains.conf", rendered(state, release(), ipv6=False))


def test_a_scale_needs_no_new_vhost() -> None:
    assert len({rendered(STATE, release(web=count)) for count in range(PREPARED + 1)}) == 1


def test_more_web_processes_than_are_prepared_are_all_named() -> None:
    many = rendered(STATE, release(web=PREPARED + 4))
    # Each with its pools of kept connections, and once for new ones only.
    assert many.count("\nupstream ") == (PREPARED + 1) * (POOLS + 1)
    assert many.count(f"web.{PREPARED + 4}.sock max_fails") == POOLS + 1


def test_a_stopped_app_answers_503() -> None:
    same_as_golden("stopped.conf", rendered(replace(STATE, stopped=True), release()))


def test_a_first_push_needs_no_new_vhost() -> None:
    config_only = replace(release(), slug=0, processes=(), formation=())
    assert rendered(STATE, None) == rendered(STATE, config_only) == rendered(STATE, release(web=1))


def test_a_new_release_needs_no_new_vhost() -> None:
    assert rendered(STATE, release()) == rendered(STATE, replace(release(), number=9))


@pytest.mark.parametrize("live", [release(kind="worker"), release(listen=Listen.NONE)])
def test_an_app_that_takes_no_requests_has_no_vhost(live: Release) -> None:
    assert rendered(STATE, live) == ""


@pytest.mark.parametrize("bad", ["x; include /etc/passwd", "a\nb", "", "UPPER", "é.org", "a" * 250])
def test_only_a_domain_becomes_a_server_name(bad: str) -> None:
    with pytest.raises(Rejected):
        rendered(STATE, release(), Settings(domain=bad))


def test_an_app_answers_at_its_own_names_and_at_the_default_one_unless_that_was_taken_away() -> None:
    default = "blog.apps.example.org"
    assert domains(BLOG, STATE, None, SETTINGS) == (default,)
    own = replace(STATE, domains=(Domain("x.org"),))
    assert domains(BLOG, own, None, SETTINGS) == ("x.org", default)
    assert domains(BLOG, replace(own, without_default=True), None, SETTINGS) == ("x.org",)
    assert domains(BLOG, replace(STATE, without_default=True), None, SETTINGS) == (default,)


def test_what_shipit_yml_asks_for_counts_as_far_as_it_was_approved() -> None:
    asking = replace(release(), domains=(Domain("a.org"), Domain("b.org")))
    approved = replace(STATE, approved=(Domain("b.org"), Domain("c.org")))
    assert domains(BLOG, STATE, asking, SETTINGS) == ("blog.apps.example.org",)
    assert domains(BLOG, approved, asking, SETTINGS) == ("b.org", "blog.apps.example.org")


def test_one_app_never_gets_all_connections_of_a_worker_of_nginx() -> None:
    def limit(capacity: int, connections: int = 3000) -> int:
        settings = replace(SETTINGS, connections=connections)
        text = vhost(BLOG, STATE, release(), settings, Layout(), pages=PAGES, capacity=capacity)
        return int(text.split("limit_conn shipit_connections ")[1].split(";")[0])

    assert (limit(8192), limit(8192, 100), limit(768)) == (3000, 100, 288)


def test_what_the_apps_share_is_of_the_settings_alone() -> None:
    same_as_golden("server.conf", server_conf(SETTINGS))
    trusting = server_conf(replace(SETTINGS, trusted_proxies=("10.0.0.2/32", "cloudflare", "cloudflare")))
    assert "    10.0.0.2/32 yes;\n    173.245.48.0/20 yes;\n" in trusting
    assert trusting.count("173.245.48.0/20") == 1


def test_the_longest_app_name_leaves_room_for_the_sockets_path() -> None:
    app = AppName("a" * 26)
    live = replace(release(web=100), app=app)
    text = vhost(app, AppState(app=app, created=0.0), live, SETTINGS, Layout(), pages=PAGES, capacity=8192)
    # sun_path has 108 bytes with the final NUL (unix(7)).
    assert max(len(line.split("unix:")[1].split()[0]) for line in text.splitlines() if "unix:" in line) <= 107


def test_the_catch_all_is_the_default_only_on_an_nginx_of_our_own() -> None:
    ours = shipit_conf(SETTINGS, Layout(), page=PAGES[429].with_name("404.html"), catch_all=True, names_hash=True)
    same_as_golden("shipit.conf", ours)
    theirs = shipit_conf(SETTINGS, Layout(), page=PAGES[429].with_name("404.html"), catch_all=False, names_hash=False)
    assert "default_server" not in theirs and "names_hash" not in theirs
    for text in (ours, theirs):
        assert text.index("return 404") < text.index("include ")


def test_how_the_app_wants_to_be_served_is_in_the_vhost() -> None:
    wanted = Serving(
        timeout=300, body=0, header=64, buffering=False, upload_buffering=False, keep=False, connections=7,
        headers=(("Content-Security-Policy", "default-src 'self'; img-src *"),),
    )  # fmt: skip
    text = rendered(STATE, replace(release(), serving=wanted))
    same_as_golden("serving.conf", text)
    assert "keepalive 16" not in text and text.count("\nupstream ") == 2 * PREPARED


def test_what_the_app_says_of_its_addresses_is_in_the_vhost() -> None:
    wanted = Serving(
        assets=(("/assets", "public/assets"),), redirects=(("/old", "/new"), ("/a.b/*", "https://example.com/b/*")),
        canonical=Domain("example.org"), allow=("10.0.0.0/8",), rate=10,
    )  # fmt: skip
    state = replace(STATE, domains=(Domain("example.org"), Domain("www.example.org")))
    text = rendered(state, replace(release(), serving=wanted))
    same_as_golden("rules.conf", text)
    # Only between names that are the app's.
    assert "return 301 $scheme" not in rendered(STATE, replace(release(), serving=wanted))


def test_a_record_cannot_put_a_line_into_nginxs_configuration() -> None:
    for bad in ("a\nb", 'a"; b', "$host", "\\"):
        raw = encode(replace(release(), serving=Serving(headers=(("X-A", bad),))))
        with pytest.raises(Corrupt):
            decode_release(raw)


def test_pages_need_no_other_vhost_than_processes() -> None:
    pages = Release(
        app=BLOG, number=8, change=Change.DEPLOY, status=Status.LIVE, by="alice", created=0.0, slug=8, static="dist"
    )
    assert rendered(STATE, pages) == rendered(STATE, release())
