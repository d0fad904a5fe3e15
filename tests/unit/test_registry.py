"""Images of a registry: what is asked, and what is believed of the answer."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from receiver.caller import Caller, Role
from receiver.cli.main import run
from receiver.errors import Denied, Failure, HostFault, Rejected
from receiver.gate.keys import LOCAL_ADMIN
from receiver.ledger.ledger import Ledger
from receiver.names import AppName
from receiver.paths import Layout
from receiver.sources.download import opened
from receiver.sources.image_archive import examined
from receiver.sources.limits import Limits
from receiver.sources.logins import Logins
from receiver.sources.oci import CONFIG, LAYER, MANIFEST, PROCESSORS
from receiver.sources.registry import Login, Reference, host_of, pulled, reference
from receiver.story import containers
from receiver.system.ends import Ends

D = "sha256:" + "ab" * 32
HERE = PROCESSORS.get(platform.machine(), platform.machine())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("debian", Reference("docker.io", "library/debian", "latest")),
        ("debian:12-slim", Reference("docker.io", "library/debian", "12-slim")),
        ("ann/shop", Reference("docker.io", "ann/shop", "latest")),
        ("localhost/shop", Reference("localhost", "shop", "latest")),
        ("localhost:5000/a/b_c:v1", Reference("localhost:5000", "a/b_c", "v1")),
        (f"ghcr.io/ann/shop@{D}", Reference("ghcr.io", "ann/shop", "", D)),
        (f"ghcr.io/ann/shop:7@{D}", Reference("ghcr.io", "ann/shop", "7", D)),
    ],
)
def test_a_name_is_read_as_docker_reads_it(text: str, found: Reference) -> None:
    assert reference(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../etc",
        "a b",
        "Shop",
        "ghcr.io/",
        "ghcr.io/a//b",
        "shop@sha256:12",
        "x:" + "t" * 129,
        "a/b:c:d",
        "-x/y",
        "h\n/x",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        reference(text)


def digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


class Registry(ThreadingHTTPServer):
    """Serves one image to `ann`, its blobs from another port as registries with a store elsewhere do."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.elsewhere, self.realm, self.place = "", "", ""
        layer, other = b"one" * 1000, b"two" * 1000
        packed = gzip.compress(layer), gzip.compress(other)
        self.diffs = [digest(layer), digest(other)]
        config = json.dumps({"architecture": HERE, "os": "linux", "rootfs": {"diff_ids": self.diffs}}).encode()
        self.layers = [digest(one) for one in packed]
        manifest = json.dumps({
            "mediaType": MANIFEST, "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": f"{LAYER}+gzip", "digest": digest(one), "size": len(one)} for one in packed],
        }).encode()  # fmt: skip
        of_others = {"digest": D, "platform": {"os": "linux", "architecture": "s390x"}}
        own = {"digest": digest(manifest), "platform": {"os": "linux", "architecture": HERE}}
        index = json.dumps({"manifests": [of_others, own]}).encode()
        self.blobs |= {digest(raw): raw for raw in (*packed, config, manifest, index)}
        self.blobs["7"] = index
        self.index = digest(index)

    @property
    def host(self) -> str:
        return "{}:{}".format(*self.server_address[:2])


class Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        kind, what = self.path.split("/")[-2:]
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.server.place:
            return self._answer(307, b"", {"Location": self.server.place})
        if self.path.startswith("/elsewhere/"):
            if self.server.realm:
                return self._answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{self.server.realm}"'})
            return self._answer(200, self.server.blobs[what])
        if self.path.startswith("/token?"):
            return self._answer(200, b'{"token": "t1"}' if self.headers.get("Authorization") else b"{}")
        if self.server.realm and self.headers.get("Authorization") != "Bearer t1":
            said = f'Bearer realm="{self.server.realm}",service="lab",scope="repository:team/shop:pull"'
            return self._answer(401, b"", {"WWW-Authenticate": said})
        if not self.headers.get("Authorization"):
            return self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="lab"'})
        if self.headers["Authorization"] not in ("Basic YW5uOmdlaGVpbQ==", "Bearer t1"):
            return self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="lab"'})
        if what not in self.server.blobs:
            return self._answer(404, b"")
        if kind == "blobs" and self.server.elsewhere:
            return self._answer(307, b"", {"Location": f"http://{self.server.elsewhere}/elsewhere/blobs/{what}"})
        return self._answer(200, self.server.blobs[what])

    def _answer(self, code: int, raw: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {**(headers or {}), "Content-Length": str(len(raw))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, form: str, *args: Any) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


LOGIN = Login("ann", "geheim")


def fetched(
    registry: Registry, tmp_path: Path, *there: str, login: Login | None = LOGIN, tag: str = "7"
) -> tuple[str, int, str]:
    """The image's id, how large its archive is, and what the reference became."""
    with pulled(Reference(registry.host, "team/shop", tag), login, tmp_path, 2**20, there) as (file, size, found):
        return examined(file, Limits(9, 2**20, 9, layers=lambda: there)).id, size, str(found)


def test_an_image_is_the_same_whether_all_of_it_came_or_what_was_lacking(registry: Registry, tmp_path: Path) -> None:
    whole = fetched(registry, tmp_path)
    part = fetched(registry, tmp_path, registry.diffs[0])
    assert whole[0] == part[0] and part[1] < whole[1]
    assert whole[2] == part[2] == f"{registry.host}/team/shop:7@{registry.index}"
    assert [path for path, _ in registry.asked].count(f"/v2/team/shop/blobs/{registry.layers[0]}") == 1
    assert not list(tmp_path.iterdir())


def test_a_password_goes_to_the_registry_alone(registry: Registry, tmp_path: Path) -> None:
    with Registry() as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        other.blobs = registry.blobs
        registry.elsewhere = other.host
        fetched(registry, tmp_path)
        other.shutdown()
    assert other.asked and not any(authority for _, authority in other.asked)
    with pytest.raises(Denied, match="does not give team/shop to everybody"):
        fetched(registry, tmp_path, login=None)
    with pytest.raises(Denied, match="to bob"):
        fetched(registry, tmp_path, login=Login("bob", "x"))


def test_who_is_asked_behind_a_redirect_does_not_say_where_the_password_goes(
    registry: Registry, tmp_path: Path
) -> None:
    with Registry() as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        other.blobs, other.realm = registry.blobs, f"http://{other.host}/token"
        registry.elsewhere = other.host
        with pytest.raises(Denied, match="does not give team/shop"):
            fetched(registry, tmp_path)
        other.shutdown()
    assert other.asked and not any(authority for _, authority in other.asked)


def test_a_registry_of_this_machine_leads_by_http_to_its_own_host_alone(registry: Registry, tmp_path: Path) -> None:
    with Registry("127.0.0.2") as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        other.blobs = registry.blobs
        registry.elsewhere = other.host
        with pytest.raises(HostFault, match="leads to where nothing is encrypted"):
            fetched(registry, tmp_path)
        registry.elsewhere, registry.realm = "", f"http://{other.host}/token"
        with pytest.raises(HostFault, match="asks to log in where nothing is encrypted"):
            fetched(registry, tmp_path)
        other.shutdown()
    assert not other.asked


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://127.0.0.1:x/"])
def test_a_registry_that_leads_to_no_address_is_told(registry: Registry, tmp_path: Path, url: str) -> None:
    registry.place = url
    with pytest.raises(HostFault, match="leads to what is no address"):
        fetched(registry, tmp_path)
    with pytest.raises(Rejected, match="does not fetch"):
        opened(f"http://{registry.host}/x.tar", Ends(60, 60), http=True)
    registry.place, registry.realm = "", url
    with pytest.raises(HostFault, match="leads to what is no address"):
        fetched(registry, tmp_path)


def test_a_registry_that_gives_out_tokens_is_asked_with_one(registry: Registry, tmp_path: Path) -> None:
    registry.realm = f"http://{registry.host}/token"
    fetched(registry, tmp_path)
    assert [path for path, _ in registry.asked if path.startswith("/token")] == [
        "/token?service=lab&scope=repository%3Ateam/shop%3Apull"
    ]
    registry.realm = "http://elsewhere.example/token"
    with pytest.raises(HostFault, match="where nothing is encrypted"):
        fetched(registry, tmp_path)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
@pytest.mark.parametrize("how", ["other", "cut", "longer"])
def test_what_is_not_what_its_digest_says_is_refused(registry: Registry, tmp_path: Path, which: int, how: str) -> None:
    name = list(registry.blobs)[which]
    raw = registry.blobs[name]
    registry.blobs[name] = {"other": raw[:-1] + b"?", "cut": raw[:-1], "longer": raw + b"?"}[how]
    with pytest.raises(HostFault) as caught:
        fetched(registry, tmp_path)
    assert "gives another" in caught.value.message or "cut it off" in caught.value.message


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"\xff", b'{"manifests": [1]}', b'{"config": 1, "layers": 2}', b"[" * 10**5]
)
def test_a_description_that_is_none_is_told(registry: Registry, tmp_path: Path, raw: bytes) -> None:
    registry.blobs["7"] = raw
    with pytest.raises(Failure):
        fetched(registry, tmp_path)


def test_an_archive_that_leaves_out_what_is_not_there_is_refused(registry: Registry, tmp_path: Path) -> None:
    wanted = Reference(registry.host, "team/shop", "7")
    with (
        pulled(wanted, LOGIN, tmp_path, 2**20, registry.diffs[:1]) as (file, _, _),
        pytest.raises(Rejected, match="leaves out 1 of 2 layers"),
    ):
        examined(file, Limits(9, 2**20, 9))
    with pytest.raises(Rejected, match="larger than 0 MiB"), pulled(wanted, LOGIN, tmp_path, 10, ()):
        pass


@pytest.mark.parametrize("port", ["99999", "0", "00000"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    for parse, text in ((reference, f"localhost:{port}/shop"), (host_of, f"localhost:{port}")):
        with pytest.raises(Rejected):
            parse(text)


@pytest.mark.parametrize(("user", "password"), [("a:b", "x"), ("a", "x\n"), ("a", "\udcff"), ("\udcff", "x")])
def test_what_no_registry_could_be_told_is_no_login(tmp_path: Path, user: str, password: str) -> None:
    with pytest.raises(Rejected):
        Logins(tmp_path / "logins").set("ghcr.io", Login(user, password))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A server with the app `shop`, and a login of its own to ghcr.io."""
    found = Layout(tmp_path)
    for app in ("shop", "blog"):
        paths = found.app(AppName(app))
        paths.repo.mkdir(parents=True)
        paths.releases.mkdir(parents=True)
        Ledger(paths).create()
    found.home.mkdir(parents=True)
    Logins.of_all(found).set("ghcr.io", LOGIN)
    Logins.of_all(found).set("docker.io", LOGIN)
    return found


def used(layout: Layout, app: str, text: str = "FROM ghcr.io/team/secret\n") -> dict[str, str]:
    """As whom the build of what somebody has pushed to `app` asks registries."""
    return containers.logins(layout, layout.app(AppName(app)), text)


def test_a_dockerfile_gets_no_login_of_the_servers_that_an_administrator_has_not_given_its_app(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = layout.app(AppName("shop"))
    assert used(layout, "shop") == {}
    advice = containers.login_advice(layout, shop, "ghcr.io wants a login: shipit registry:login APP ghcr.io USER")
    assert "shipit registry:allow shop ghcr.io" in advice
    for who, code in ((Caller("eve", "", Role.DEPLOY), 77), (LOCAL_ADMIN, 0)):
        assert run(["registry:allow", "shop", "ghcr.io"], who, layout) == code
    assert "the builds of: shop" in capsys.readouterr().out
    # Of that one registry, and that app alone.
    assert used(layout, "shop") == {"ghcr.io": "ann:geheim"} and used(layout, "blog") == {}
    assert containers.login_advice(layout, shop, advice) == advice
    assert run(["registry:logout", "shop", "ghcr.io"], Caller("eve", "", Role.DEPLOY), layout) == 0
    assert used(layout, "shop") == {}
    # The app's own needs nobody's leave.
    Logins.of_app(shop).set("ghcr.io", Login("shop", "own"))
    assert used(layout, "shop") == {"ghcr.io": "shop:own"}


def test_who_may_use_a_login_of_the_servers_is_forgotten_with_it(layout: Layout) -> None:
    for words in (["shop"], ["--global"]):
        assert run(["registry:allow", *words, "ghcr.io"], LOCAL_ADMIN, layout) == 0
    assert set(used(layout, "blog")) == {"ghcr.io"}
    assert run(["registry:logout", "--global", "ghcr.io"], LOCAL_ADMIN, layout) == 0
    Logins.of_all(layout).set("ghcr.io", Login("root", "another"))
    assert used(layout, "shop") == used(layout, "blog") == {}
    assert run(["registry:allow", "shop", "quay.io"], LOCAL_ADMIN, layout) == 2


@pytest.mark.parametrize("role", [Role.DEPLOY, Role.ADMIN])
def test_an_image_that_is_named_is_asked_for_as_the_server_by_an_administrator_alone(
    role: Role, layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Login | None] = []

    @contextmanager
    def denied(wanted: Reference, login: Login | None, *_: object) -> Iterator[Any]:
        asked.append(login)
        raise Denied("ghcr.io does not give team/secret to everybody.", hint="registry:login")
        yield

    monkeypatch.setattr("receiver.sources.registry.pulled", denied)
    monkeypatch.setattr("receiver.story.containers.missing", list)
    words = ["deploy", "shop", "--image", "ghcr.io/team/secret"]
    assert run(words, Caller("eve", "", role), layout) == 77
    told = "shipit registry:allow shop ghcr.io" in capsys.readouterr().err
    assert (asked, told) == (([None], True) if role is Role.DEPLOY else ([LOGIN], False))
