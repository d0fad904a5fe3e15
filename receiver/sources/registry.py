"""Fetches images from a registry, by the API that docker and podman use (the OCI distribution specification).

A tag is looked up once, and the release records the digest. Every part is checked against its digest as it comes. The
result is an OCI archive as `podman save` writes it, without the layers that the server has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from receiver.errors import Denied, HostFault, NotFound, Rejected, printable
from receiver.sources.download import CHUNK, LONGEST, REDIRECTS, SILENCE
from receiver.sources.limits import too_large
from receiver.sources.oci import CONFIG, LAYER, MANIFEST, PROCESSORS, Layout
from receiver.system.ends import Ends, why
from receiver.system.transfer import answered

HUB, HUB_API = "docker.io", "registry-1.docker.io"
LIST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
TYPES = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
MAX_JSON, SMALL = 2**22, 120.0  # limits of a description: bytes and seconds
# A registry on this machine may use http, as with docker.
NEAR = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_PARAMETER = re.compile(r'([a-z]+)="([^"]*)"')


@dataclass(frozen=True)
class Reference:
    """`docker.io/library/debian:12`; if there is a digest, it decides."""

    host: str
    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" * bool(self.tag), f"@{self.digest}" * bool(self.digest)
        return f"{self.host}/{self.name}{tag}{digest}"


class Login(NamedTuple):
    """The user and password for a registry."""

    user: str
    password: str


def reference(text: str) -> Reference:
    """Parse an image's name as docker does; raises Rejected. The default registry is Docker Hub, the default tag
    `latest`."""
    rest, _, digest = text.partition("@")
    first, slash, more = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, rest = first, more
    else:
        host, rest = HUB, rest if slash else f"library/{rest}"
    name, _, tag = rest.partition(":")
    fits = _is_host(host) and _NAME.fullmatch(name) and len(name) < 256 and (not tag or _TAG.fullmatch(tag))
    if not fits or (digest and not _DIGEST.fullmatch(digest)):
        raise Rejected(
            f"{text[:100]!a} is no image of a registry.",
            hint="As in: registry.example.org/team/shop:7, or …/shop@sha256:DIGEST",
        )
    return Reference(host, name, tag or ("" if digest else "latest"), digest)


def host_of(text: str) -> str:
    """`HOST` or `HOST:PORT` of a registry; raises Rejected."""
    if not _is_host(text):
        raise Rejected(f"{text[:60]!a} is no registry.", hint="HOST or HOST:PORT, as an image's name begins")
    return HUB if text in ("index.docker.io", HUB_API) else text


def _is_host(text: str) -> bool:
    try:
        return _HOST.fullmatch(text) is not None and urlsplit(f"https://{text}").port != 0
    except ValueError:
        return False


@contextmanager
def pulled(
    wanted: Reference, login: Login | None, folder: Path, limit: int, there: Collection[str]
) -> Iterator[tuple[IO[bytes], int, Reference]]:
    """The image as an OCI archive in an unnamed file, its size in bytes, and the reference with its digest.

    `there`: the digests of unpacked layers that are left out. Raises Rejected beyond `limit` bytes, NotFound and Denied
    as the registry answers, HostFault if it cannot be reached or sends content that does not match its digest.
    """
    import tempfile

    registry = Registry(wanted, login)
    digest, manifest = registry.manifest()
    config = registry.small("blobs", _digest(manifest.get("config")))
    layers = manifest.get("layers")
    diffs = _diffs(config)
    if not isinstance(layers, list) or len(layers) != len(diffs):
        raise _strange(wanted.host)
    # A layer that is left out is described by its unpacked digest, by which podman finds it in its store.
    kept: list[dict[str, Any]] = [
        {"mediaType": LAYER, "digest": diff, "size": 0} if diff in there else _described(layer)
        for layer, diff in zip(layers, diffs, strict=True)
    ]
    bring = {one["digest"]: one["size"] for one in kept if one["digest"] not in there}
    if sum(bring.values()) > limit:
        raise too_large("The image", limit)
    with tempfile.TemporaryFile(dir=folder) as file:
        layout = Layout(file)
        for layer, size in bring.items():
            layout.blob(layer, size, registry.blob(layer, size))
        described = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": kept,
                     "config": {"mediaType": CONFIG, "digest": layout.add(config), "size": len(config)}}  # fmt: skip
        name = f"{wanted.name.rpartition('/')[2]}:{wanted.tag}" if wanted.tag else wanted.name.rpartition("/")[2]
        layout.finish(json.dumps(described).encode(), name)
        file.flush()
        yield file, file.tell(), Reference(wanted.host, wanted.name, wanted.tag, digest)


@dataclass
class Registry:
    """One image of a registry, fetched with `login`."""

    wanted: Reference
    login: Login | None
    _token: str = field(default="", repr=False)
    _ends: Ends = field(default_factory=lambda: Ends(LONGEST, SILENCE))

    def manifest(self) -> tuple[str, dict[str, Any]]:
        """The manifest for this machine's processor, and the digest that was asked for or found."""
        raw = self.small("manifests", self.wanted.digest or self.wanted.tag)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        found = _json(raw, self.wanted.host)
        if isinstance(found.get("manifests"), list):
            here = PROCESSORS.get(platform.machine(), platform.machine())
            fits = [one for one in found["manifests"] if isinstance(one, dict) and _platform(one) == ("linux", here)]
            if not fits:
                raise Rejected(
                    f"{self.wanted} is not made for linux/{here}, which this server is.", holds="Nothing was changed."
                )
            found = _json(self.small("manifests", _digest(fits[0])), self.wanted.host)
        return digest, found

    def small(self, kind: str, what: str) -> bytes:
        """A small document, checked against its digest if it is named by one."""
        with self._answer(kind, what, self._ends.within(SMALL)) as answer:
            try:
                raw = answer.read(MAX_JSON + 1)
            except (OSError, HTTPException) as error:
                raise _cut(self.wanted.host) from error
        if len(raw) > MAX_JSON or (what.startswith("sha256:") and f"sha256:{hashlib.sha256(raw).hexdigest()}" != what):
            raise HostFault(f"{self.wanted.host} gives another thing than {what[:19]}.", holds="Nothing was changed.")
        return raw

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """A layer, in parts; raises HostFault if it does not match its digest."""
        found, left = hashlib.sha256(), size
        with self._answer("blobs", digest, self._ends) as answer:
            try:
                while chunk := answer.read(CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        break
                    found.update(chunk)
                    yield chunk
            except (OSError, HTTPException) as error:
                raise _cut(self.wanted.host) from error
        if left > 0:
            raise _cut(self.wanted.host)
        if left or f"sha256:{found.hexdigest()}" != digest:
            raise HostFault(
                f"{self.wanted.host} gives another layer than its digest says.", holds="Nothing was changed."
            )

    @contextmanager
    def _answer(self, kind: str, what: str, ends: Ends) -> Iterator[HTTPResponse]:
        host = HUB_API if self.wanted.host == HUB else self.wanted.host
        scheme = "http" if NEAR.fullmatch(host) else "https"
        url = f"{scheme}://{host}/v2/{self.wanted.name}/{kind}/{what}"
        headers = {"Accept": ", ".join((*TYPES, *LIST_TYPES)) if kind == "manifests" else "*/*"}
        connection, answer, own = self._ask(url, {**headers, **self._authority()}, ends)
        try:
            # Only the registry itself may say where its password goes, not a host that it redirects to.
            if answer.status == 401 and own and self._logs_in(answer.getheader("WWW-Authenticate") or ""):
                connection.close()
                connection, answer, own = self._ask(url, {**headers, **self._authority()}, ends)
            if answer.status in (401, 403):
                raise Denied(
                    f"{self.wanted.host} does not give {self.wanted.name} to "
                    f"{printable(self.login.user) if self.login else 'everybody'}.", holds="Nothing was changed.",
                    hint=f"registry:login APP {self.wanted.host} USER - < PASSWORD",
                )  # fmt: skip
            if answer.status == 404:
                raise NotFound(f"{self.wanted.host} has no {self.wanted.name} {what[:30]}.")
            if answer.status != 200:
                raise HostFault(f"{self.wanted.host} answers {answer.status}.", holds="Nothing was changed.")
            yield answer
        finally:
            connection.close()

    def _authority(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _logs_in(self, challenge: str) -> bool:
        """Get the authorization that the registry asks for (RFC 7617, or a token); returns whether to try again."""
        kind, _, told = challenge.partition(" ")
        basic = self.login and "Basic " + base64.b64encode(f"{self.login.user}:{self.login.password}".encode()).decode()
        before = self._token
        if kind.lower() == "basic" and basic:
            self._token = basic
        elif kind.lower() == "bearer":
            said = dict(_PARAMETER.findall(told))
            realm = said.get("realm", "")
            near = self._parts(f"http://{self.wanted.host}").hostname if NEAR.fullmatch(self.wanted.host) else ""
            if not realm.startswith("https://") and (self._parts(realm).hostname or None) != near:
                raise HostFault(f"{self.wanted.host} asks to log in where nothing is encrypted.")
            words = {"service": said.get("service", ""), "scope": f"repository:{self.wanted.name}:pull"}
            query = "&".join(f"{key}={quote(value)}" for key, value in words.items() if value)
            connection, answer, _ = self._ask(
                f"{realm}?{query}", {"Authorization": basic} if basic else {}, self._ends.within(SMALL)
            )
            try:
                found = _json(answer.read(MAX_JSON), self.wanted.host) if answer.status == 200 else {}
            except (OSError, HTTPException) as error:
                raise _cut(self.wanted.host) from error
            finally:
                connection.close()
            token = found.get("token") or found.get("access_token")
            self._token = f"Bearer {token}" if isinstance(token, str) and token.isprintable() else before
        return self._token != before

    def _parts(self, url: str, base: str = "") -> SplitResult:
        """The parts of a URL from the registry, relative to `base`; raises HostFault if it is none."""
        try:
            parts = urlsplit(urljoin(base, url))
            if parts.port != 0:
                return parts
        except ValueError:
            pass
        raise HostFault(f"{self.wanted.host} leads to what is no address.", holds="Nothing was changed.")

    def _ask(self, url: str, headers: Mapping[str, str], ends: Ends) -> tuple[HTTPConnection, HTTPResponse, bool]:
        """The answer after redirects, and whether it came from the first host; another host gets no secret."""
        first = parts = self._parts(url)
        for _ in range(REDIRECTS + 1):
            # With http, redirects may lead only to the same host: not to addresses that only this machine can reach.
            if parts.scheme != "https" and (parts.scheme, parts.hostname) != (first.scheme, first.hostname):
                raise HostFault(f"{self.wanted.host} leads to where nothing is encrypted.")
            same = parts.netloc == first.netloc
            own = {key: value for key, value in headers.items() if same or key != "Authorization"}
            try:
                connection, answer = answered(parts, ends, own)
            except (OSError, HTTPException, ValueError) as error:
                raise HostFault(
                    f"{parts.netloc[:100]} cannot be reached: {why(error)}.", holds="Nothing was changed."
                ) from error
            place = answer.getheader("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not place:
                return connection, answer, same
            connection.close()
            parts = self._parts(place, parts.geturl())
        raise HostFault(f"{self.wanted.host} redirects more than {REDIRECTS} times.")


def _platform(one: Mapping[str, Any]) -> tuple[Any, Any]:
    told = one.get("platform")
    return (told.get("os"), told.get("architecture")) if isinstance(told, dict) else (None, None)


def _described(layer: Any) -> dict[str, Any]:
    digest, size = _digest(layer), layer.get("size")
    kind = str(layer.get("mediaType", ""))
    if not isinstance(size, int) or not 0 < size < 2**40:
        raise _strange("The registry")
    packed = "+zstd" if "zstd" in kind else "+gzip" if "gzip" in kind else ""
    return {"mediaType": LAYER + packed, "digest": digest, "size": size}


def _digest(descriptor: Any) -> str:
    told = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(told, str) or not _DIGEST.fullmatch(told):
        raise _strange("The registry")
    return told


def _diffs(config: bytes) -> list[str]:
    rootfs = _json(config, "The registry").get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise _strange("The registry")
    return found


def _json(raw: bytes, host: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _strange(host)
    return found


def _strange(host: str) -> Rejected:
    return Rejected(f"{host} describes no image that shipit knows.", holds="Nothing was changed.")


def _cut(host: str) -> HostFault:
    return HostFault(f"{host} cut it off, or took too long.", holds="Nothing was changed.", hint="Try again.")
