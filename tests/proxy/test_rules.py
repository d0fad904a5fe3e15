"""What an app says of its addresses, asked of a real nginx: assets, redirects, names, who may ask, and how often."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from receiver import names
from receiver.errors import Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import AppState, Release
from receiver.names import Domain
from receiver.proxy import master, nginx, passwords, snippet
from receiver.proxy.certificates import Secure, Served
from receiver.records import encode
from receiver.serving import Serving

from .site import APP, Site, free_port, local, release, until
from .test_switch import ask

STATE = AppState(app=APP, created=0.0)
HASHED = "app-BxY3fgh1.js"
ASSETS = (("/assets", "public/assets"), ("/img/static", "img"))


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


def put_live(site: Site, number: int, serving: Serving, files: dict[str, str], slug: int = 0) -> Release:
    made = replace(release(number), serving=serving, slug=slug or number)
    for name, content in files.items():
        path = site.layout.app(APP).release(number).slug / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    site.spawn(number, "closes")
    ledger = Ledger(site.layout.app(APP))
    ledger.save(made)
    ledger.commit(made)
    return made


def write_vhost(site: Site, made: Release, *domains: str) -> None:
    state = AppState(app=APP, created=0.0, domains=tuple(map(Domain, domains)))
    site.layout.app(APP).vhost.write_text(local(nginx.text(site.layout, site.settings, state, made)))


def test_assets_are_served_by_nginx_and_those_of_the_page_that_is_still_open_too(site: Site) -> None:
    serving = Serving(assets=ASSETS)
    first = {f"public/assets/{HASHED}": "one", "public/assets/old.css": "old", "public/secret": "x", "img/a.txt": "a"}
    made = put_live(site, 1, serving, first)
    below = site.layout.app(APP).release(1).slug / "public/assets"
    (below / ".env").write_text("SECRET")
    (below / "out").symlink_to("/etc/passwd")
    # A slug belongs to the build's user.
    os.chown(below / "out", 1, 1, follow_symlinks=False)
    write_vhost(site, made)
    site.start_nginx()
    assert ask(site, f"GET /assets/{HASHED}") == ("200", "one") and ask(site, "GET /img/static/a.txt") == ("200", "a")
    # What is no asset is the app's.
    for path in (
        "/",
        "/assets/none.js",
        "/assets/out",
        "/assets/.env",
        "/assets/../public/secret",
        "/assets/%2e%2e/secret",
    ):
        assert ask(site, f"GET {path}") == ("200", "v1"), path
    assert ask(site, f"POST /assets/{HASHED}")[0] != "405"
    put_live(site, 2, serving, {"public/assets/new.css": "new", "public/assets/old.css": "changed"})
    assert ask(site, f"GET /assets/{HASHED}") == ("200", "one")
    assert ask(site, "GET /assets/new.css") == ("200", "new") and ask(site, "GET /assets/old.css") == ("200", "changed")
    # A config change has the same files: the page from before them may still be open.
    put_live(site, 3, serving, {}, slug=2)
    assert ask(site, f"GET /assets/{HASHED}") == ("200", "one") and ask(site, "GET /assets/none.js") == ("200", "v3")
    put_live(site, 4, serving, {"public/assets/x": ""})
    assert ask(site, f"GET /assets/{HASHED}") == ("200", "v4") and ask(site, "GET /assets/new.css") == ("200", "new")


def test_paths_and_the_twin_of_the_name_are_redirected(site: Site) -> None:
    redirects = (("/old", "/new"), ("/blog/*", "https://blog.example.org/b/*"), ("/a.b/*", "/c/*"), ("/gone/*", "/"))
    made = put_live(site, 1, Serving(redirects=redirects, canonical=Domain("example.org")), {})
    write_vhost(site, made, "example.org", "www.example.org")
    site.start_nginx()

    def leads(path: str) -> str:
        status, answer = ask(site, f"GET {path}")
        assert status == "301", answer
        return answer.split("Location: ", 1)[1].split("\r\n")[0]

    assert leads("/old?a=1") == "/new?a=1"
    assert leads("/blog/2024/x?a=b%20c") == "https://blog.example.org/b/2024/x?a=b%20c"
    assert leads("/a.b/x") == "/c/x" and leads("/gone/x/y") == "/"
    assert "\r\nX: y" not in ask(site, "GET /blog/x%0d%0aX:%20y")[1]
    assert ask(site, "GET /aXb/x") == ("200", "v1")
    assert ask(site, "GET /p?q=1", host="www.example.org")[1].count("Location: http://example.org/p?q=1") == 1
    assert ask(site, host="example.org") == ("200", "v1")


def test_only_who_is_allowed_may_ask_and_nobody_too_often(site: Site) -> None:
    made = put_live(site, 1, Serving(allow=("10.0.0.0/8",), assets=ASSETS), {"public/assets/a": "a"})
    write_vhost(site, made)
    site.start_nginx()
    assert {ask(site, f"GET {path}")[0] for path in ("/", "/assets/a", "/assets/none")} == {"403"}
    write_vhost(site, replace(made, serving=Serving(allow=("127.0.0.1/32",), rate=1)))
    master.reload(site.layout, site.nginx_pid())
    until(lambda: ask(site)[0] == "200")
    assert "429" in {ask(site)[0] for _ in range(6)}


def test_a_guarded_app_is_shown_to_who_has_a_password_and_a_changed_one_counts_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "proxy_group", os.getgid)
    made = put_live(site, 1, Serving(assets=ASSETS), {"public/assets/a": "a"})
    ledger = Ledger(site.layout.app(APP))
    passwords.save(ledger, {"alice": passwords.hashed("first ü"), "bob": passwords.hashed("x" * passwords.LONGEST)})
    assert "first" not in ledger.paths.passwords.read_text() and ledger.paths.passwords.stat().st_mode & 0o777 == 0o640
    state = AppState(app=APP, created=0.0, guarded=True)
    site.layout.app(APP).vhost.write_text(local(nginx.text(site.layout, site.settings, state, made)))
    site.start_nginx()

    def shown(who: str, path: str = "/") -> str:
        given = base64.b64encode(who.encode()).decode()
        return ask(site, f"GET {path}", more=f"Authorization: Basic {given}\r\n")[0]

    assert {ask(site, f"GET {path}")[0] for path in ("/", "/assets/a", "/assets/none")} == {"401"}
    assert (
        shown("alice:first ü")
        == shown("alice:first ü", "/assets/a")
        == shown(f"bob:{'x' * passwords.LONGEST}")
        == "200"
    )
    assert shown("alice:second") == shown("alice:") == shown("carol:first ü") == "401"
    passwords.save(ledger, {"alice": passwords.hashed("second")})
    assert shown("alice:second") == "200" and shown("alice:first ü") == "401"


def test_lines_of_nginxs_own_language_are_what_nginx_takes(site: Site) -> None:
    """Each directive of the list, in each of its places: what is written of it is valid, and does what it says."""
    words = {"gzip_types": "text/css text/plain", "gzip_comp_level": "5", "gzip_min_length": "100", "auth_basic": "off",
             "add_header": 'X-Own "a; b"', "proxy_hide_header": "X-Secret", "expires": "max", "return": "410"}  # fmt: skip

    def all_of(known: Iterable[str]) -> str:
        kinds = {"limit": "10m", "client_max": "1m", "gzip": "on", "proxy_b": "off", "proxy_request": "off"}
        found = []
        for name in known:
            usual = next((word for kind, word in kinds.items() if name.startswith(kind)), "30s")
            found.append(f"{name} {words.get(name, usual)};")
        return " ".join(found)

    inner = [name for name in snippet.LOCATION if name != "return"]
    given = (
        f"{all_of(snippet.SERVER)} location /a/b {{ {all_of(inner)} }} location = /c {{ {all_of(snippet.LOCATION)} }}"
    )
    made = put_live(site, 1, Serving(headers=(("X-App", "1"),)), {})
    site.layout.app(APP).snippet.write_bytes(encode(snippet.parse(given)))
    write_vhost(site, made)
    site.start_nginx()
    assert ask(site, "GET /a/b/c") == ask(site, "POST /a/b/c") == ask(site) == ("200", "v1")
    assert ask(site, "GET /c")[0] == "410" and ask(site, "GET /cc")[0] == "200"


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("buffering", [True, False])
def test_a_body_that_http2_told_nothing_of_is_the_last_on_its_connection(
    site: Site, tmp_path: Path, buffering: bool, secure: bool
) -> None:
    """An app that does not read it would take it for the next request, which may be another visitor's. By HTTPS, and
    where another site has made the plain port speak HTTP/2."""
    made = put_live(site, 1, Serving(upload_buffering=buffering), {})
    site.terminate(1, how=signal.SIGKILL).wait()
    where = site.sockets(1, 1)[0]
    where.unlink()
    port = free_port() if secure else site.port
    site.settings = replace(site.settings, https_port=port if secure else 443)
    served = (
        Secure(servers=(Served(certified(tmp_path), (Domain(f"{APP}.test"),)),), http2=False) if secure else Secure()
    )
    text = local(nginx.text(site.layout, site.settings, STATE, made, served))
    site.layout.app(APP).vhost.write_text(
        text if secure else re.sub(r"(listen 127\.0\.0\.1:[0-9]+)", r"\1 http2", text)
    )
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.set_alpn_protocols(["h2"])
    heads: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as app:
        app.bind(str(where))
        app.listen()
        app.settimeout(10)
        site.start_nginx()
        # The last ones have no body until the app has been asked, which nginx does only without buffering.
        smuggled = b"GET /admin HTTP/1.1\r\n\r\n"
        kinds = [(b"GET", b"", 0), (b"GET", smuggled, 0), (b"HEAD", b"x", 0), (b"GET", b"x" * 30_000, 0)]
        late = [] if buffering else [(b"GET", smuggled, 1), (b"HEAD", b"x", 1), (b"GET", b"x" * 30_000, 1)]
        for method, body, pieces in kinds + late:
            head, data = http2(method, f"{APP}.test".encode(), body)
            with socket.create_connection(("127.0.0.1", port)) as plain:
                client = trusting.wrap_socket(plain, server_hostname=f"{APP}.test") if secure else plain
                client.sendall(head if pieces else head + data)
                connection, _ = app.accept()
                with connection:
                    connection.settimeout(10)
                    said = b""
                    while b"\r\n\r\n" not in said:
                        said += connection.recv(65536)
                    heads.append(said.partition(b"\r\n\r\n")[0].lower())
    closes = [b"connection: close" in head for head in heads]
    assert closes == [False] + [True] * (len(heads) - 1), heads


def certified(where: Path) -> Path:
    """A key and its certificate, in one file."""
    made = where / "both.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"]
    subprocess.run(["openssl", *words, "-keyout", made, "-out", where / "crt"], check=True, capture_output=True)
    made.write_text(made.read_text() + (where / "crt").read_text())
    return made


def http2(method: bytes, host: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Head and body of a request without a content-length (RFC 9113)."""

    def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
        return struct.pack(">BHBBI", 0, len(content), kind, flags, stream) + content

    # In the words of RFC 7541: `:method`, `:scheme http`, `:path /`, `:authority`.
    head = b"\x42" + bytes([len(method)]) + method + b"\x86\x84\x41" + bytes([len(host)]) + host
    parts = [body[at : at + 16_000] for at in range(0, len(body), 16_000)]
    data = [frame(0, part is parts[-1], 1, part) for part in parts]
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    return begin + frame(1, 4 | (not body), 1, head), b"".join(data)


@pytest.mark.parametrize("bad", ["", "a\nb", "a\0b", "x" * (passwords.LONGEST + 1), "😀" * passwords.LONGEST])
def test_what_nobody_could_type_is_no_password(bad: str) -> None:
    with pytest.raises(Rejected):
        passwords.hashed(bad)


@pytest.mark.parametrize("bad", ["", "a:b", "a b", "a\n", "-a", "é"])
def test_a_visitors_name_is_one_word(bad: str) -> None:
    with pytest.raises(Rejected):
        names.visitor(bad)
