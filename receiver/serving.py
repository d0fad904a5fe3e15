"""How nginx serves an app: the section `proxy:` of its shipit.yml, as a value. The defaults are shipit's, not
nginx's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from receiver import names
from receiver.errors import Rejected
from receiver.names import Domain
from receiver.records import Format, Record, flag, many, optional, own, pairs, parsed, text, whole

LONGEST_TIMEOUT = 86_400  # s
LARGEST_BODY = 1_048_576  # MiB
LARGEST_HEADER = 256  # KiB
MOST_CONNECTIONS = 100_000
MOST_REQUESTS = 100_000

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}", re.ASCII)
# What may stand between double quotes in nginx's configuration: no quote, no backslash, no variable, one line.
_VALUE = re.compile(r"[ !#%-\[\]-~]{0,4000}", re.ASCII)
# A path, or an address with one.
_ADDRESS = re.compile(
    r"(?P<host>https?://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?)?(?P<path>/[^ ]*)?", re.ASCII
)
_REDIRECTS = "redirects: {/old: /new, /blog/*: https://blog.example.org/*}"
# These headers describe the message's form or its sender; nginx writes them itself.
_OWN = frozenset(
    {"connection", "content-length", "date", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade"}
)


def header(name: str, value: str) -> tuple[str, str]:
    """Parse a response header; raises Rejected with the rule."""
    if not _HEADER.fullmatch(name) or name.lower() in _OWN:
        raise Rejected(
            f"{name[:60]!a} is no header that an app can set here.",
            hint="Letters, digits and dashes, as in X-Frame-Options; not what nginx writes itself (Date, Server …).",
        )
    if not _VALUE.fullmatch(value):
        raise Rejected(
            f"The value of {name} cannot be put into nginx's configuration.",
            hint='ASCII in one line without ", \\ and $; let the app itself send it.',
        )
    return name, value


def canonical(text: str) -> Domain:
    """Parse the canonical name, to which the same name with or without www. is redirected; raises Rejected."""
    if text.startswith("*."):
        raise Rejected("A wildcard is no name to redirect to.", hint="canonical: www.example.org")
    return names.domain(text)


def twin(name: Domain) -> Domain:
    """The same name without www., or, if it has none, with it."""
    return Domain(name.removeprefix("www.") if name.startswith("www.") else f"www.{name}")


def network(text: str) -> str:
    """Parse an address or a network in the form of nginx's `allow`; raises Rejected."""
    import ipaddress

    try:
        # Python accepts an interface's name after an address.
        if "%" in text:
            raise ValueError("has a zone")
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise Rejected(
            f"{ascii(text)[:60]} is no address and no network.", hint="allow: [192.0.2.7, 10.0.0.0/8, 2001:db8::/32]"
        ) from error


def redirect(source: str, target: str) -> tuple[str, str]:
    """Parse a redirect: a path, or `/path/*` for all below it, to a path or an address; raises Rejected."""
    parts = _ADDRESS.fullmatch(target)
    if parts is None or not target:
        raise Rejected(f"{ascii(target)[:60]} is nothing to redirect to.", hint=_REDIRECTS)
    rest = parts["path"] or "/"
    names.url_path(source.removesuffix("*"))
    names.url_path(rest.removesuffix("*"))
    below, keeps = source.endswith("*"), rest.endswith("*")
    if (below and not source.endswith("/*")) or (keeps and not (below and rest.endswith("/*"))) or source == "/*":
        raise Rejected(f"The redirect of {ascii(source)[:60]} is not one.", hint=_REDIRECTS)
    if source.startswith("/.well-known/acme-challenge"):
        raise Rejected("/.well-known/acme-challenge is where certificates are proved.", hint="Take this redirect out.")
    if not parts["host"] and (target == source or (below and target.startswith(source[:-1]))):
        raise Rejected(f"The redirect of {ascii(source)[:60]} leads to itself.", hint=_REDIRECTS)
    return source, target


def asset(prefix: str, directory: str) -> tuple[str, str]:
    """Parse an address and the directory of the release that is served there; raises Rejected."""
    names.url_path(prefix)
    if prefix.endswith("/") or "/." in prefix:
        raise Rejected(f"{ascii(prefix)[:60]} is no address of assets.", hint="static: {/assets: public/assets}")
    names.slug_path(directory)
    if f"/{directory}".count("/."):
        raise Rejected(
            f"{ascii(directory)[:60]} is hidden, and hidden files are not served.", hint="Choose another name."
        )
    return prefix, directory


def overlap(assets: Iterable[str], redirects: Iterable[str]) -> str:
    """The first address that two of these would answer; "" if there is none."""
    places = sorted(f"{name}/" for name in assets)
    for one, other in pairwise(places):
        if other.startswith(one):
            return other.rstrip("/")
    below = {source[:-1] for source in redirects if source.endswith("*")}
    return next((place for place in places if place in below), "")


def _headers(value: Any, format: Format) -> tuple[tuple[str, str], ...]:
    return tuple(header(name, said) for name, said in pairs(text, text)(value, format))


def _redirects(value: Any, format: Format) -> tuple[tuple[str, str], ...]:
    return tuple(redirect(source, target) for source, target in pairs(text, text)(value, format))


def _assets(value: Any, format: Format) -> tuple[tuple[str, str], ...]:
    found = tuple(asset(prefix, directory) for prefix, directory in pairs(text, text)(value, format))
    if twice := overlap([prefix for prefix, _ in found], ()):
        raise ValueError(f"has {twice} twice")
    return found


@dataclass(frozen=True)
class Serving(Record):
    """`timeout`: how long (s) nginx waits for the app to send anything, 1–86400. `body`: the largest request body (MiB;
    0: no limit). `header`: the largest header of a request or a response (KiB). `buffering`: nginx reads the app's
    answer as fast as the app sends it, and passes it on as fast as the client reads; `upload_buffering`: nginx reads a
    whole request body before it asks the app. `keep`: connections to the app are kept for the next request.
    `connections`: how many requests and websockets may be open at once, 0 for the server's default. `headers`: added to
    each response. `assets`: addresses, and the directories of the release that nginx serves there. `redirects`: paths,
    and where they lead (301). `canonical`: the same name with or without www. is redirected to it. `allow`: the
    networks that may make requests; all if it is empty. `rate`: how many requests a second a client may make, 0 for any
    number.
    """

    timeout: int = field(default=60, metadata=own(whole(LONGEST_TIMEOUT, low=1)))
    body: int = field(default=100, metadata=own(whole(LARGEST_BODY)))
    header: int = field(default=16, metadata=own(whole(LARGEST_HEADER, low=4)))
    buffering: bool = field(default=True, metadata=own(flag))
    upload_buffering: bool = field(default=True, metadata=own(flag))
    keep: bool = field(default=True, metadata=own(flag))
    connections: int = field(default=0, metadata=own(whole(MOST_CONNECTIONS)))
    headers: tuple[tuple[str, str], ...] = field(default=(), metadata=own(_headers))
    assets: tuple[tuple[str, str], ...] = field(default=(), metadata=own(_assets, since=Format(1, 3)))
    redirects: tuple[tuple[str, str], ...] = field(default=(), metadata=own(_redirects, since=Format(1, 3)))
    canonical: Domain | None = field(default=None, metadata=own(optional(parsed(canonical)), since=Format(1, 3)))
    allow: tuple[str, ...] = field(default=(), metadata=own(many(parsed(network)), since=Format(1, 3)))
    rate: int = field(default=0, metadata=own(whole(MOST_REQUESTS), since=Format(1, 3)))
