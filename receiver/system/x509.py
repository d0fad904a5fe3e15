"""Checks certificates and keys with openssl(1), and refuses bad ones before they are used.

Only what stands between the BEGIN and END lines of a certificate or a key goes on to openssl and nginx. openssl runs as
the user who gave the certificate, and who knows its key already; root's own process decodes none of it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise

from receiver.errors import Rejected
from receiver.system.run import Result, run

MAX_SIZE, MAX_CHAIN = 256 * 1024, 10
# Allowed difference between the clocks of two machines (s).
SKEW = 300
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n(.{1,65536}?)-----END \1-----", re.DOTALL)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\r\n]+")
_KEYS = (b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY")
_NAME = re.compile(r"DNS:([A-Za-z0-9.*-]+)")


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain and its key, which belong together. `pem` is the text for nginx: key, then chain;
    times are seconds since the epoch; `fingerprint` is the certificate's, SHA-256 in hexadecimal digits."""

    pem: bytes
    names: tuple[str, ...]
    not_before: float
    not_after: float
    issuer: str
    fingerprint: str
    self_signed: bool


def read(data: bytes, *, now: Callable[[], float] = time.time, user: str | None = None) -> Pair:
    """Check a certificate, the chain behind it and its key, in any order in `data` (PEM); raises Rejected.

    `user` runs openssl(1); only root can choose.
    """
    chain, key = parts(data)
    leaf = chain[0]
    about = _openssl(user, ["x509", "-noout", "-startdate", "-enddate", "-dateopt", "iso_8601"], leaf)
    if about.code:
        raise Rejected("The first certificate cannot be read.", details=_said(about))
    begin, end = (_time(about.out, name) for name in ("notBefore", "notAfter"))
    public = _openssl(user, ["x509", "-noout", "-pubkey"], leaf).out
    own = _openssl(user, ["pkey", "-pubout", "-passin", "pass:"], key)
    if own.code:
        raise Rejected("The private key cannot be read.", hint="It must be PEM without a passphrase.")
    if not public or own.out != public:
        raise Rejected(
            "The private key does not belong to the certificate.", hint="The server's certificate comes first"
        )
    if now() > end:
        raise Rejected(f"The certificate has expired, on {_day(end)}.")
    if now() + SKEW < begin:
        raise Rejected(f"The certificate is valid from {_day(begin)} on.", hint="Is this machine's clock right?")
    names = tuple(dict.fromkeys(name.lower() for name in _NAME.findall(_shown(user, leaf, "-ext", "subjectAltName"))))
    if not names:
        raise Rejected("The certificate names no domain (subjectAltName), so no browser would accept it.")
    for number, (cert, signer) in enumerate(pairwise(chain), 1):
        if why := _unsigned(user, cert, signer):
            raise Rejected(
                f"Certificate {number} of the chain is not signed by certificate {number + 1}.", details=[why],
                hint="First the server's certificate, then each that signed the one before it",
            )  # fmt: skip
    fingerprint = _shown(user, leaf, "-fingerprint", "-sha256").partition("=")[2].strip().replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise Rejected("The certificate cannot be read.")
    issuer = _shown(user, leaf, "-issuer", "-nameopt", "RFC2253").removeprefix("issuer=").strip()
    subject = _shown(user, leaf, "-subject", "-nameopt", "RFC2253").removeprefix("subject=").strip()
    return Pair(
        pem=key + b"".join(chain), names=names, not_before=begin, not_after=end,
        issuer=re.sub(r"[^ -~]", "?", issuer)[:200], fingerprint=fingerprint, self_signed=issuer == subject,
    )  # fmt: skip


def parts(data: bytes) -> tuple[list[bytes], bytes]:
    """The certificates and the one key of a PEM text, each in canonical form; raises Rejected."""
    if len(data) > MAX_SIZE:
        raise Rejected(f"A certificate with its chain and key is larger than {MAX_SIZE // 1024} KiB.")
    chain: list[bytes] = []
    keys: list[bytes] = []
    for label, body in _BLOCK.findall(data):
        if b"ENCRYPTED" in label or b"ENCRYPTED" in body:
            raise Rejected(
                "The private key is protected by a passphrase, which nobody types when the proxy starts.",
                hint="openssl pkey -in key.pem -out plain.pem",
            )
        if label not in (b"CERTIFICATE", *_KEYS):
            continue
        if not _BASE64.fullmatch(body):
            raise Rejected(f"The block {label.decode()} is not PEM.")
        lines = re.sub(rb"\s+", b"\n", body.strip())
        block = b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label, lines, label)
        (chain if label == b"CERTIFICATE" else keys).append(block)
    if not chain or not keys:
        missing = "certificate" if not chain else "private key"
        raise Rejected(f"There is no {missing} in what was given.", hint="PEM: -----BEGIN CERTIFICATE----- …")
    if len(keys) > 1:
        raise Rejected("There is more than one private key in what was given.")
    if len(chain) > MAX_CHAIN:
        raise Rejected(f"The chain has more than {MAX_CHAIN} certificates.")
    return chain, keys[0]


def distrust(pair: Pair, user: str | None = None) -> str:
    """Why a client that knows only the system's authorities does not trust the certificate; "" if it does."""
    chain, _ = parts(pair.pem)
    with _files(chain[0], b"".join(chain)) as (leaf, all_of_it):
        done = run(
            ["openssl", "verify", "-untrusted", f"/dev/fd/{all_of_it}", f"/dev/fd/{leaf}"],
            pass_fds=(leaf, all_of_it), user=user, check=False, timeout=30,
        )  # fmt: skip
    return _why(done) if done.code else ""


def _unsigned(user: str | None, cert: bytes, issuer: bytes) -> str:
    with _files(cert, issuer) as (leaf, trusted):
        done = run(
            ["openssl", "verify", "-partial_chain", "-trusted", f"/dev/fd/{trusted}", f"/dev/fd/{leaf}"],
            pass_fds=(leaf, trusted), user=user, check=False, timeout=30,
        )  # fmt: skip
    return _why(done) if done.code else ""


def _why(done: Result) -> str:
    found = re.search(r"depth lookup: ([ -~]{1,100})", done.err)
    return found[1] if found else "it cannot be verified"


@contextmanager
def _files(*contents: bytes) -> Iterator[Sequence[int]]:
    """Descriptors of unnamed files in memory with these contents."""
    fds: list[int] = []
    try:
        for content in contents:
            fds.append(os.memfd_create("certificate", os.MFD_CLOEXEC))
            os.write(fds[-1], content)
            os.lseek(fds[-1], 0, os.SEEK_SET)
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def _openssl(user: str | None, words: list[str], data: bytes) -> Result:
    return run(["openssl", *words], input=data, user=user, check=False, timeout=30)


def _shown(user: str | None, cert: bytes, *words: str) -> str:
    return _openssl(user, ["x509", "-noout", *words], cert).out


def _said(done: Result) -> list[str]:
    return [re.sub(r"[^ -~]", "?", line)[:200] for line in done.err.splitlines()[:3]]


def _time(text: str, name: str) -> float:
    """`notAfter=2026-11-26 03:00:00Z`; raises Rejected."""
    found = re.search(rf"^{name}=(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d)Z$", text, re.MULTILINE)
    if not found:
        raise Rejected("The certificate has no dates that can be read.")
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))
