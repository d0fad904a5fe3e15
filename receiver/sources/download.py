"""Downloads an archive from a URL: by https, or by http if its digest is given; with limits for size, time,
redirects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, urljoin, urlsplit

from receiver.errors import HostFault, Rejected
from receiver.sources.limits import too_large
from receiver.system.ends import Ends, why
from receiver.system.transfer import answered

REDIRECTS = 5
SILENCE, LONGEST = 60.0, 1800.0  # seconds: without a byte, and for the whole download
CHUNK = 2**18
_URL = re.compile(r"https?://[A-Za-z0-9\[][^\s\x00-\x20\x7f]{1,2000}", re.ASCII)
_SHA256 = re.compile(r"(?:sha256:)?([0-9A-Fa-f]{64})", re.ASCII)


@contextmanager
def downloaded(url: str, sha256: str, folder: Path, limit: int) -> Iterator[tuple[IO[bytes], int]]:
    """The content of a URL, in an unnamed file, and its size in bytes.

    `sha256` is the digest that it must have ("": any). Raises Rejected beyond `limit` bytes, for another digest or a
    URL of another kind, HostFault if the download fails.
    """
    import tempfile

    wanted = digest_of(sha256)
    with tempfile.TemporaryFile(dir=folder) as file:
        found = hashlib.sha256()
        size = 0
        connection, answer = opened(url, Ends(LONGEST, SILENCE), http=bool(wanted))
        try:
            while chunk := answer.read(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise too_large("The archive", limit)
                found.update(chunk)
                file.write(chunk)
            if answer.length:
                raise HostFault(f"The archive was cut off: {answer.length} bytes are missing.", hint="Try again.")
        except (OSError, HTTPException) as error:
            raise HostFault(f"The archive was cut off ({why(error)}).", hint="Try again.") from error
        finally:
            connection.close()
        if wanted and found.hexdigest() != wanted:
            raise Rejected(
                f"The archive is not the one that was asked for: its SHA-256 is {found.hexdigest()}.",
                holds="Nothing was changed.",
            )
        file.flush()
        file.seek(0)
        yield file, size


def digest_of(text: str) -> str:
    """A SHA-256 in lower case; raises Rejected if it is none."""
    match = _SHA256.fullmatch(text)
    if text and not match:
        raise Rejected(f"{text[:80]!a} is no SHA-256.", hint="64 hexadecimal digits: sha256sum FILE")
    return match[1].lower() if match else ""


def opened(url: str, ends: Ends, *, http: bool, accept: str = "*/*") -> tuple[HTTPConnection, HTTPResponse]:
    """The answer after redirects. `http`: unencrypted URLs are allowed, also in redirects; `accept`: the wanted type of
    content; `ends`: the time by which everything has to arrive."""
    for _ in range(REDIRECTS + 1):
        parts = checked(url, http=http)
        try:
            connection, answer = answered(parts, ends, {"Accept": accept})
        except (OSError, HTTPException, ValueError) as error:
            raise HostFault(f"{shown(url)} could not be fetched: {why(error)}.") from error
        if answer.status == 200:
            return connection, answer
        place = answer.getheader("Location")
        connection.close()
        if answer.status not in (301, 302, 303, 307, 308) or not place:
            raise HostFault(f"{shown(url)} could not be fetched: it answers {answer.status}.")
        try:
            url = urljoin(url, place)
        except ValueError:
            url = place  # not a valid address; `checked` says so
    raise Rejected(f"The URL redirects more than {REDIRECTS} times.")


def checked(url: str, *, http: bool) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if not _URL.fullmatch(url) or not parts.hostname or port == 0 or "@" in parts.netloc:
        raise Rejected(f"shipit does not fetch {shown(url)!a}.", hint="As in: https://HOST/PATH.tar.gz")
    if parts.scheme != "https" and not http:
        raise Rejected(
            "What comes by http could have been changed on the way.",
            hint="Give its digest: --sha256 DIGEST; or fetch it by https.",
        )
    return parts


def shown(url: str) -> str:
    """The URL without parts that may be secret: the query, and a user."""
    return url.partition("?")[0].partition("#")[0].rpartition("@")[2][:200]
