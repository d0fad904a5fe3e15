"""`deploy APP --pypi NAME==V`: an index over TLS, the file that any machine can install, and its digest."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import Failure, HostFault, NotFound, Rejected
from receiver.sources.pypi import found

DIGEST = "ab" * 32


def file(name: str, **more: Any) -> dict[str, Any]:
    return {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": DIGEST}, **more}


PAGES: dict[str, Any] = {
    "hello": {"files": [
        file("hello-1.0.tar.gz"), file("hello-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"), file("hello-1.0-py3-none-any.whl"),
        file("hello-1.1-py3-none-any.whl", yanked="broken"), file("hello-1.1.tar.gz"), file("hello-1.0.1-py3-none-any.whl"),
        file("hello-2.0-cp311-cp311-manylinux_2_17_x86_64.whl"), file("hello-3.0-py3-none-any.whl", hashes={}),
    ]},
    "my-hello": {"files": [file("my_hello-1.0-py3-none-any.whl"), 7, {"filename": 3}]},
    "odd": {"no": "files"},
}  # fmt: skip


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.split("/")[2]
            self.send_response(200 if name in PAGES else 404)
            self.end_headers()
            assert self.headers["Accept"] == "application/vnd.pypi.simple.v1+json"
            self.wfile.write(json.dumps(PAGES.get(name)).encode())

        def log_message(self, *_: Any) -> None: ...

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True,
    )  # fmt: skip
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    yield f"https://localhost:{server.server_port}/simple"
    server.shutdown()


def test_the_wheel_that_any_machine_can_install_is_taken_else_the_source(index: str) -> None:
    told = {"PIP_INDEX_URL": index + "/"}
    files = index.replace("/simple", "/files")
    assert found("hello==1.0", told) == (f"{files}/hello-1.0-py3-none-any.whl", DIGEST)
    assert found("Hello==1.1", told) == (f"{files}/hello-1.1.tar.gz", DIGEST)
    assert found("my_hello==1.0", told) == (f"{files}/my_hello-1.0-py3-none-any.whl", DIGEST)
    for gone in ("hello==2.0", "hello==3.0", "hello==9"):
        with pytest.raises(NotFound, match=gone.partition("==")[2]):
            found(gone, told)
    for broken in ("odd==1", "none==1"):
        with pytest.raises(HostFault):
            found(broken, told)


@pytest.mark.parametrize(
    "bad", ["hello", "hello>=1", "../x==1", "hello==../1", "hello==1 x", "-e==1", "a@b==1", "hello==1\n"]
)
def test_what_names_no_version_of_a_package_is_refused_before_anybody_is_asked(bad: str) -> None:
    with pytest.raises(Rejected, match="no NAME==VERSION"):
        found(bad, {"PIP_INDEX_URL": "https://127.0.0.1:1/simple"})


def test_an_index_without_tls_is_not_asked() -> None:
    with pytest.raises(Failure, match="by http could have been changed"):
        found("hello==1.0", {"PIP_INDEX_URL": "http://127.0.0.1:1/simple"})
