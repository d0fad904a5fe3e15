"""receiver.proxy.nginx on a real nginx: what it changes, what it refuses, and what still serves then."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.errors import HostFault
from receiver.ledger.ledger import Ledger
from receiver.model import AppState, Change, Check, CheckKind, Listen, ProcessType
from receiver.names import AppName, Domain, TypeName
from receiver.proxy import master, nginx
from receiver.proxy.forwarded import DROPPED
from receiver.proxy.vhost import PREPARED, vhost
from receiver.root import agent
from receiver.serving import Serving

from .load import Load
from .site import APP, Site, local, release, until


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A running nginx without apps; what apply renders listens on 127.0.0.1 only."""
    monkeypatch.setattr(nginx, "vhost", lambda *a, **k: local(vhost(*a, **k)))
    with Site() as made:
        made.start_nginx()
        create(made)
        yield made


def create(site: Site, app: AppName = APP, **values: object) -> Ledger:
    """The ledger of an app; `values` change its state."""
    ledger = Ledger(site.layout.app(app))
    ledger.paths.releases.mkdir(parents=True, exist_ok=True)
    ledger.save_state(replace(AppState(app=app, created=0.0), **values))  # type: ignore[arg-type]
    return ledger


def live(
    site: Site,
    number: int = 1,
    web: int = 1,
    kind: str = "uvicorn",
    app: AppName = APP,
    serving: Serving | None = None,
) -> None:
    """A release that runs and is committed."""
    ledger = Ledger(site.layout.app(app))
    for index in range(1, web + 1):
        site.spawn(number, kind, app=app, index=index)
    ledger.commit(ledger.save(replace(release(number, web=web, app=app), serving=serving or Serving())))


def apply(site: Site, app: AppName = APP) -> bool:
    return nginx.apply(site.layout, site.settings, app)


def get(
    site: Site,
    host: str = "blog.test",
    path: str = "/",
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request(method, path, body, {"Host": host, **(headers or {})})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_an_app_serves_once_applied_and_a_second_time_nothing_is_done(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(site)
    assert apply(site)
    assert get(site) == (200, "v1")
    # As in a fork of the agent, which has done ahead what it can.
    nginx._version.cache_clear()
    for _ in agent.imports():
        pass
    monkeypatch.setattr(nginx, "run", lambda *a, **k: pytest.fail("a program was started"))
    monkeypatch.setattr(master, "reload", lambda *a: pytest.fail("nginx was reloaded"))
    assert not apply(site)


def test_a_first_release_and_the_next_go_live_without_a_reload(site: Site) -> None:
    assert apply(site)
    assert get(site)[0] == 503
    ledger = Ledger(site.layout.app(APP))
    ledger.commit(ledger.open_release(Change.CONFIG, "alice"))
    assert not apply(site)
    assert get(site)[0] == 503
    for number in (2, 3):
        live(site, number)
        assert not apply(site)
        assert get(site) == (200, f"v{number}")


def test_every_new_connection_meets_the_new_configuration_when_apply_returns(site: Site) -> None:
    live(site)
    for count in range(5):
        create(site, domains=(Domain(f"d{count}.example.org"),))
        assert apply(site)
        assert {get(site, f"d{count}.example.org") for _ in range(20)} == {(200, "v1")}
        assert get(site, f"d{count - 1}.example.org")[0] == 404


def test_a_reload_that_another_began_is_not_taken_for_ones_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx stands at two gates, behind the files of the apps, each time that it reads its configuration."""
    live(site)
    main = site.root / "etc/nginx/nginx.conf"
    gates = [site.root / "etc/nginx" / name for name in ("read.gate", "done.gate")]
    for gate in gates:
        os.mkfifo(gate)
    main.write_text(
        main.read_text().rstrip().removesuffix("}") + "".join(f"include {gate};\n" for gate in gates) + "}\n"
    )
    monkeypatch.setattr(nginx, "validate", lambda layout: None)  # it would stand there, too

    def passes(gate: Path) -> bool:
        """Whether nginx stood at the gate; it is let through."""
        try:
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    looks = threading.Event()
    real = master._reloads
    monkeypatch.setattr(master, "_reloads", lambda which: (looks.set(), real(which))[1])
    try:
        os.kill(site.nginx_pid(), signal.SIGHUP)  # as `systemctl reload nginx` does
        until(lambda: passes(gates[0]))
        # It has read the files of before, and stands at the second gate.
        create(site, domains=(Domain("new.example.org"),))
        with ThreadPoolExecutor(1) as beside:
            applied = beside.submit(apply, site)
            assert looks.wait(60)
            until(lambda: passes(gates[1]))
            # Now it reads what was asked for meanwhile.
            until(lambda: passes(gates[0]))
            assert not wait([applied], 0.5).done
            until(lambda: passes(gates[1]))
            applied.result(20)
    finally:
        # Whatever failed: nginx can be ended.
        until(lambda: not any(passes(gate) for gate in gates))
    assert get(site, "new.example.org") == (200, "v1")


def test_another_sites_mistake_leaves_all_as_it_was(site: Site) -> None:
    live(site)
    apply(site)
    before = site.layout.app(APP).vhost.read_bytes()
    (site.layout.nginx / "broken.conf").write_text("server { listen nonsense; }\n")
    create(site, domains=(Domain("new.example.org"),))
    with pytest.raises(HostFault) as failure:
        apply(site)
    assert "broken.conf" in "".join(failure.value.details)
    assert site.layout.app(APP).vhost.read_bytes() == before
    assert get(site) == (200, "v1")
    (site.layout.nginx / "broken.conf").unlink()
    assert apply(site)
    assert get(site, "new.example.org") == (200, "v1")


def test_a_first_vhost_that_is_refused_does_not_stay(site: Site) -> None:
    (site.layout.nginx / "broken.conf").write_text("nonsense;\n")
    with pytest.raises(HostFault):
        apply(site)
    assert sorted(path.name for path in site.layout.nginx.iterdir()) == [".lock", "_server.conf", "broken.conf"]


def test_a_reload_that_the_master_refuses_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nginx -t` does not mind a port in use, the master does, and only logs it."""
    monkeypatch.setattr(master, "RELOAD_TIMEOUT", 4.0)
    live(site)
    apply(site)
    before = site.layout.app(APP).vhost.read_bytes()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        site.settings = replace(site.settings, http_port=taken.getsockname()[1])
        with pytest.raises(HostFault) as failure:
            apply(site)
    assert "(98: Address" in "".join(failure.value.details)
    assert site.layout.app(APP).vhost.read_bytes() == before
    assert get(site) == (200, "v1")


@pytest.mark.parametrize("found", [b"", b"# an older one\n"])
def test_a_crash_between_file_and_reload_is_made_good(site: Site, found: bytes) -> None:
    live(site)
    apply(site)
    # As left by a kill -9 after the rename: the new file is there, nginx never heard of it.
    site.layout.app(APP).vhost.with_suffix(".undo").write_bytes(found)
    assert apply(site)
    assert not apply(site)


def test_a_stopped_nginx_is_told_and_has_the_file_when_it_starts(site: Site) -> None:
    live(site)
    site.stop_nginx()
    with pytest.raises(HostFault, match="does not run"):
        apply(site)
    site.start_nginx()
    assert get(site) == (200, "v1")
    assert not apply(site)


def test_a_stopped_nginx_has_all_files_of_a_change_when_it_starts(site: Site) -> None:
    live(site)
    server = nginx.server_path(site.layout)
    right = server.read_bytes()
    server.write_bytes(b"# an older one\n")
    site.stop_nginx()
    with pytest.raises(HostFault, match="does not run") as told:
        apply(site)
    assert "of blog is valid" in told.value.holds
    assert server.read_bytes() == right and site.layout.app(APP).vhost.exists()
    site.start_nginx()
    assert get(site) == (200, "v1")


def test_a_removed_app_is_an_unknown_name(site: Site) -> None:
    live(site)
    apply(site)
    assert nginx.remove(site.layout, APP)
    assert get(site) == (404, "There is no app at this name.\n")
    assert not nginx.remove(site.layout, APP)


def test_an_app_that_stops_taking_requests_loses_its_vhost(site: Site) -> None:
    apply(site)
    ledger = Ledger(site.layout.app(APP))
    worker = ProcessType(TypeName("worker"), "run", Listen.NONE, Check(CheckKind.UPTIME))
    only = replace(release(1), processes=(worker,), formation=((worker.type, 1),))
    (ledger.paths.releases / "v1").mkdir()
    ledger.commit(ledger.save(only))
    assert apply(site)
    assert not site.layout.app(APP).vhost.exists()


def test_stopped_and_scaled_to_zero_answer_503_and_a_dead_process_502(site: Site) -> None:
    live(site)
    create(site, stopped=True)
    apply(site)
    assert get(site)[0] == 503
    assert "This app is stopped" in get(site, method="POST", body=b"x")[1]
    create(site)
    apply(site)
    site.terminate(1, how=signal.SIGKILL).wait()
    status, page = get(site, method="POST", body=b"x")
    assert status == 502 and "not answering" in page
    assert get(site, path="/.shipit/502.html")[0] == 404


def test_the_administrators_pages_win(site: Site) -> None:
    own = site.layout.etc / "templates/pages"
    own.mkdir(parents=True)
    (own / "502.html").write_text("ours")
    apply(site)
    assert "not running" in get(site)[1]
    (own / "503.html").write_text("closed for today")
    assert apply(site)
    assert get(site) == (503, "closed for today")


def headers(site: Site, path: str = "/headers", host: str = "blog.test", **claims: str) -> dict[str, str]:
    """What of a request's header reaches the app; `claims` are headers with _ for -."""
    sent = {name.replace("_", "-"): value for name, value in claims.items()}
    request = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **sent}.items())
    with socket.create_connection(("127.0.0.1", site.port)) as pipe:
        pipe.sendall(f"GET {path} HTTP/1.1\r\n{request}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: pipe.recv(65536), b"")).decode()
    status, _, text = answer.partition("\r\n\r\n")
    assert " 200 " in status, answer
    return dict(line.split("=", 1) for line in text.splitlines())


FAMILY = ("forward", "proxy", "real", "client_ip", "scheme", "ssl", "https", "proto", "original", "rewrite", "cf_")


def test_what_a_client_claims_to_be_is_not_passed_on(site: Site) -> None:
    live(site, kind="sync")
    apply(site)
    made_up = dict.fromkeys([*DROPPED, "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "X-Request-Id"], "6.6.6.6")
    seen = headers(site, **made_up, X_Forwarded_Proto="https")
    assert seen.pop("HTTP_X_FORWARDED_FOR") == seen.pop("HTTP_X_REAL_IP") == "127.0.0.1"
    assert seen.pop("HTTP_X_FORWARDED_PROTO") == "http"
    assert re.fullmatch(r"[0-9]+\.[0-9]{3}-[0-9]+-[0-9]+", seen.pop("HTTP_X_REQUEST_ID"))
    assert "6.6.6.6" not in seen.values()
    assert not [name for name in seen if any(word in name.lower() for word in FAMILY)]
    # With _ for -, which servers cannot tell from the other.
    with socket.create_connection(("127.0.0.1", site.port)) as pipe:
        pipe.sendall(
            b"GET /headers HTTP/1.1\r\nHost: blog.test\r\nX_Forwarded_Proto: https\r\nConnection: close\r\n\r\n"
        )
        assert b"https" not in b"".join(iter(lambda: pipe.recv(65536), b""))


def test_a_trusted_proxy_tells_who_the_client_is_and_nobody_else_does(site: Site) -> None:
    live(site, kind="sync")
    claims = {"X_Forwarded_For": "6.6.6.6, 9.9.9.9", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "shop.example"}
    for trusted, (address, scheme, host) in {
        "127.0.0.1/32": ("9.9.9.9", "https", "shop.example"),
        "10.0.0.0/8": ("127.0.0.1", "http", "blog.test"),
    }.items():
        site.settings = replace(site.settings, trusted_proxies=(trusted,))
        assert apply(site)
        seen = headers(site, **claims, X_Forwarded_Ssl="on", Forwarded="proto=http", X_Forwarded_Port="1")
        assert (seen["HTTP_X_REAL_IP"], seen["HTTP_X_FORWARDED_FOR"]) == (address, address)
        assert (seen["HTTP_X_FORWARDED_PROTO"], seen["HTTP_X_FORWARDED_HOST"]) == (scheme, host)
        assert not {"HTTP_X_FORWARDED_SSL", "HTTP_FORWARDED", "HTTP_X_FORWARDED_PORT"} & seen.keys()


ELSE = 'for="[2001:db8::7]:99";by=x'
FORWARDED = {
    "for=9.9.9.9;proto=https;host=shop.example": ("9.9.9.9", "https", "shop.example"),
    f"{ELSE} , For=9.9.9.9:5678; PROTO=https": ("9.9.9.9", "https", "blog.test"),
    f"for=6.6.6.6;proto=http, {ELSE}": ("2001:db8::7", "http", "blog.test"),
    # Of proxies in a row, whom the first one of ours has seen.
    "for=6.6.6.6, for=9.9.9.9;proto=https, for=127.0.0.1;proto=http": ("9.9.9.9", "https", "blog.test"),
    "for=9.9.9.9;proto=https, for=127.0.0.1, for=127.0.0.1": ("9.9.9.9", "https", "blog.test"),
    "for=127.0.0.1;proto=https": ("127.0.0.1", "https", "blog.test"),
    # What is not of the form, or is in quotes that another has opened, says nothing.
    'for=", for=9.9.9.9;proto=https': ("127.0.0.1", "http", "blog.test"),
    'host="x, for=6.6.6.6;proto=https"': ("127.0.0.1", "http", "blog.test"),
    'by="a;for=6.6.6.6";for=_hidden;proto=https': ("127.0.0.1", "https", "blog.test"),
    "for=6.6.6.6;proto=https,,": ("127.0.0.1", "http", "blog.test"),
    r'for="6.6.6.6\"";proto=https': ("127.0.0.1", "http", "blog.test"),
}


def test_forwarded_of_a_trusted_proxy_counts_where_nginx_sees_all_of_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(site, kind="sync")

    def told(**claims: str) -> tuple[str, str, str]:
        seen = headers(site, **claims)
        assert seen["HTTP_X_REAL_IP"] == seen["HTTP_X_FORWARDED_FOR"] and "HTTP_FORWARDED" not in seen
        return seen["HTTP_X_REAL_IP"], seen["HTTP_X_FORWARDED_PROTO"], seen["HTTP_X_FORWARDED_HOST"]

    nobody = ("127.0.0.1", "http", "blog.test")
    for version, trusted in (((1, 22, 1), "127.0.0.1/32"), ((1, 26, 3), "10.0.0.0/8"), ((1, 26, 3), "127.0.0.1/32")):
        monkeypatch.setattr(nginx, "version", lambda version=version: version)
        site.settings = replace(site.settings, trusted_proxies=(trusted,))
        assert apply(site)
        for said, seen in FORWARDED.items():
            reads = version > (1, 23) and trusted.startswith("127")
            assert told(Forwarded=said) == (seen if reads else nobody), (version, trusted, said)
    # One way counts, whatever else is said.
    assert told(Forwarded="for=6.6.6.6;proto=https", X_Forwarded_For="9.9.9.9") == ("9.9.9.9", "http", "blog.test")
    longest = ("for=6.6.6.6;by=x, " * 900)[:15000]
    began = time.monotonic()
    assert told(Forwarded=longest) == nobody and time.monotonic() - began < 2


def test_allow_and_rate_are_of_the_client_that_forwarded_tells(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "version", lambda: (1, 26, 3))
    site.settings = replace(site.settings, trusted_proxies=("127.0.0.1/32",))
    live(site, kind="sync", serving=Serving(allow=("9.9.9.0/24",), rate=1))
    apply(site)
    for path in ("/", "/headers", "/.shipit/x"):
        assert get(site, "blog.test", path, headers={"Forwarded": "for=6.6.6.6"})[0] == 403
        assert get(site, "blog.test", path)[0] == 403
    told = [get(site, headers={"Forwarded": f"for=9.9.9.{number % 2}"})[0] for number in range(16)]
    assert set(told) == {200, 429} and told[:4] == [200] * 4


def test_the_proxy_protocol_of_a_trusted_proxy_says_who_the_client_is_and_no_header_does(site: Site) -> None:
    live(site, kind="sync")
    apply(site)
    for trusted, address in {"127.0.0.1/32": "9.9.9.9", "10.0.0.0/8": "127.0.0.1"}.items():
        site.settings = replace(site.settings, trusted_proxies=(trusted,), proxy_protocol=True)
        site.write_shipit_conf()
        assert apply(site)
        with socket.create_connection(("127.0.0.1", site.port)) as pipe:
            pipe.sendall(
                b"PROXY TCP4 9.9.9.9 127.0.0.1 5678 80\r\nGET /headers HTTP/1.1\r\nHost: blog.test\r\n"
                b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6;proto=https\r\n"
                b"Connection: close\r\n\r\n"
            )
            answer = b"".join(iter(lambda: pipe.recv(65536), b"")).decode()
        seen = dict(line.split("=", 1) for line in answer.partition("\r\n\r\n")[2].splitlines())
        assert (seen["HTTP_X_REAL_IP"], seen["HTTP_X_FORWARDED_FOR"]) == (address, address)
        assert seen["HTTP_X_FORWARDED_PROTO"] == "http" and "6.6.6.6" not in seen.values()
    # Who does not speak it is not served.
    with socket.create_connection(("127.0.0.1", site.port)) as pipe:
        pipe.sendall(b"GET / HTTP/1.1\r\nHost: blog.test\r\n\r\n")
        assert pipe.recv(100) == b""


@pytest.mark.parametrize(
    ("path", "host", "seen_host"),
    [
        ("/headers", "BLOG.Test", "blog.test"),
        ("/headers", "blog.test.", "blog.test"),
        ("/headers", "Blog.test.:8080", "blog.test:8080"),
        # RFC 9112, 3.2.2: the request line wins over the header.
        ("http://blog.test/headers", "evil.example", "blog.test"),
        ("http://blog.test:8080/headers", "evil.example:8080", "blog.test"),
        ("http://BLOG.test/headers", "blog.test:8080", "blog.test:8080"),
    ],
)
def test_the_app_sees_one_host_and_it_is_the_one_it_was_chosen_by(
    site: Site, path: str, host: str, seen_host: str
) -> None:
    live(site, kind="sync")
    apply(site)
    seen = headers(site, path, host)
    assert seen["HTTP_HOST"] == seen_host and "HTTP_X_FORWARDED_HOST" not in seen


@pytest.mark.parametrize("web", [1, 2])
def test_a_request_means_the_same_whichever_way_it_goes(site: Site, web: int) -> None:
    """Most requests go the short way to the app (templates/proxy/serve.j2); a port, a body or a method sends one the long
    way, and so does all that makes nginx look at the release more closely."""
    live(site, web=web, kind="sync")
    apply(site)
    path = "/head%65rs?a=%2F%20b"
    short = headers(site, path)
    assert (short["RAW_URI"], short["HTTP_HOST"]) == (path, "blog.test")
    long = headers(site, path, "blog.test:8080")
    upgrading = headers(site, path, Upgrade="websocket", Connection="upgrade")
    assert (upgrading.pop("HTTP_UPGRADE"), upgrading.pop("HTTP_CONNECTION")) == ("websocket", "upgrade")
    assert long.pop("HTTP_HOST") == "blog.test:8080" and short.pop("HTTP_HOST") == upgrading.pop("HTTP_HOST")
    ids = [seen.pop("HTTP_X_REQUEST_ID") for seen in (short, long, upgrading)]
    assert len({*ids}) == 3
    for seen in (long, upgrading):
        seen.pop("HTTP_CONNECTION", None)
        assert seen == short
    for method, body in (("HEAD", b""), ("GET", b"body"), ("PUT", b"body"), ("OPTIONS", b"")):
        assert get(site, method=method, body=body)[0] == 200, method
    assert "variable" not in (site.root / "var/log/nginx/error.log").read_text()


def test_a_body_of_2_mib_is_taken_and_one_of_101_is_not(site: Site) -> None:
    live(site)
    apply(site)
    assert get(site, method="POST", body=b"x" * 2**21) == (200, "v1")
    with socket.create_connection(("127.0.0.1", site.port)) as pipe:
        pipe.sendall(b"POST / HTTP/1.1\r\nHost: blog.test\r\nContent-Length: %d\r\n\r\n" % (101 * 2**20))
        assert pipe.recv(100).startswith(b"HTTP/1.1 413 ")


def test_more_and_fewer_processes_than_are_prepared_lose_no_request_on_new_connections(site: Site) -> None:
    live(site)
    apply(site)
    with Load(site.port, "blog.test", clients=8, keep=False, method="POST") as load:
        for number, web in enumerate((PREPARED + 2, PREPARED + 1, 1), start=2):
            live(site, number, web)
            assert apply(site)
            time.sleep(0.2)
    assert not load.failures and load.requests > 100
    assert set(load.answers) == {"v1", "v2", "v3", "v4"}


def test_two_apps_may_be_applied_at_the_same_moment(site: Site) -> None:
    apps = [AppName(f"app{number}") for number in range(4)]
    for app in apps:
        create(site, app)
        live(site, app=app)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda app: apply(site, app), apps))
    assert [get(site, f"{app}.test") for app in apps] == [(200, "v1")] * 4


def test_the_longest_domains_of_200_apps_fit(site: Site) -> None:
    long = ".".join(["x" * 60] * 4)
    for number in range(200):
        app = AppName(f"app{number}")
        state = AppState(app=app, created=0.0, domains=(Domain(f"a{number}.{long}"), Domain(f"*.b{number}.{long}")))
        site.layout.app(app).vhost.write_text(local(nginx.text(site.layout, site.settings, state, None)))
    live(site)
    assert apply(site)
    assert get(site) == (200, "v1")
    assert get(site, f"a199.{long}")[0] == 503


def test_an_unknown_name_is_nobodys_app(site: Site) -> None:
    live(site)
    apply(site)
    assert get(site, "evil.example.org") == (404, "There is no app at this name.\n")
    assert get(site, "127.0.0.1")[0] == 404
    status, page = get(site, "evil.example.org", "/x", headers={"Accept": "text/html,*/*"})
    assert status == 404 and "<h1>There is no app at this name</h1>" in page
