"""Who the client is, and by which name it asked: what the app is told, and by whom nginx has it."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import replace

import pytest

from receiver.proxy import nginx
from receiver.proxy.forwarded import DROPPED
from receiver.serving import Serving

from .applied import apply, get, live
from .site import Site

FAMILY = ("forward", "proxy", "real", "client_ip", "scheme", "ssl", "https", "proto", "original", "rewrite", "cf_")
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
