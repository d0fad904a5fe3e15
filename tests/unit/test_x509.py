"""What is refused before any proxy sees it: certificates made by openssl(1), each wrong in one way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from receiver.errors import Rejected
from receiver.system import x509
from receiver.system.run import run

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Makes:
    """An authority that signs what it is asked to."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.root, self.root_key = self.own("root", "-addext", "basicConstraints=critical,CA:TRUE")

    def own(self, name: str, *words: str) -> tuple[bytes, bytes]:
        key, cert = self.dir / f"{name}.key", self.dir / f"{name}.pem"
        run(["openssl", "req", "-x509", *EC, "-subj", f"/CN={name}", *words, "-keyout", key, "-out", cert])
        return cert.read_bytes(), key.read_bytes()

    def signed(self, *names: str, days: int = 30) -> tuple[bytes, bytes]:
        key, asked = self.dir / "leaf.key", self.dir / "leaf.csr"
        alternative = ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)] if names else []
        run(["openssl", "req", *EC, "-subj", "/CN=leaf", *alternative, "-keyout", key, "-out", asked])
        signer = ["-CA", self.dir / "root.pem", "-CAkey", self.dir / "root.key", "-CAcreateserial"]
        words = ["-req", "-in", asked, "-days", str(days), "-copy_extensions", "copy"]
        return run(["openssl", "x509", *words, *signer]).out.encode(), key.read_bytes()


@pytest.fixture(scope="module")
def makes(tmp_path_factory: pytest.TempPathFactory) -> Makes:
    return Makes(tmp_path_factory.mktemp("authority"))


def refused(data: bytes, why: str, now: float = 0.0) -> None:
    with pytest.raises(Rejected, match=why):
        x509.read(data, now=lambda: now or time.time())


def test_what_fits_is_taken_in_any_order_and_without_what_stands_around_it(makes: Makes) -> None:
    cert, key = makes.signed("www.example.org", "*.example.org")
    pair = x509.read(b"Bag Attributes\n" + cert + b"ssl_engine evil;\n" + makes.root + b"\r\n" + key)
    assert pair.names == ("www.example.org", "*.example.org")
    assert pair.issuer == "CN=root" and not pair.self_signed and len(pair.fingerprint) == 64
    assert pair.pem.count(b"-----BEGIN") == 3 and b"evil" not in pair.pem and pair.pem.startswith(b"-----BEGIN PRIVATE")
    assert 29 * 86400 < pair.not_after - time.time() < 31 * 86400
    assert "issuer certificate" in x509.distrust(pair) or "self-signed" in x509.distrust(pair)


def test_a_key_of_another_certificate_is_refused(makes: Makes) -> None:
    cert, _ = makes.signed("a.test")
    _, other = makes.signed("a.test")
    refused(cert + other, "does not belong")


def test_dates_count(makes: Makes) -> None:
    cert, key = makes.signed("a.test")
    refused(cert + key, "has expired", now=time.time() + 31 * 86400)
    refused(cert + key, "is valid from", now=time.time() - 86400)
    late, its_key = makes.signed("a.test", days=-1)
    refused(late + its_key, "has expired")


def test_a_chain_that_does_not_hold_is_refused(makes: Makes) -> None:
    cert, key = makes.signed("a.test")
    stranger, _ = makes.own("stranger")
    refused(cert + stranger + key, "not signed by certificate 2")
    refused(makes.root + cert + key, "does not belong")


def test_what_is_missing_or_cannot_be_used_is_said(makes: Makes, tmp_path: Path) -> None:
    cert, key = makes.signed("a.test")
    refused(cert, "no private key")
    refused(key, "no certificate")
    refused(cert + key + makes.root_key, "more than one private key")
    refused(b"x" * (x509.MAX_SIZE + 1), "larger than")
    refused(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + key, "cannot be read")
    refused(b"-----BEGIN CERTIFICATE-----\nA;}A\n-----END CERTIFICATE-----\n" + key, "not PEM")
    nameless, its_key = makes.signed()
    refused(nameless + its_key, "names no domain")
    (tmp_path / "key").write_bytes(key)
    locked = run(["openssl", "pkey", "-in", tmp_path / "key", "-aes256", "-passout", "pass:secret"]).out.encode()
    refused(cert + locked, "passphrase")
