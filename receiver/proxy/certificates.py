"""The certificates of an app: which are installed, which name uses which one, and which to ask for now.

The directory apps/APP/tls is root's: `own.json` and `acme/NAME.json` describe what is installed; `keys/FINGERPRINT.pem`
is what nginx reads (key and chain in one file, so that one rename replaces both); `tries/NAME.json` is the result of
the last request for a certificate; `dns.json` says how names are proved by DNS, `secrets/dns` has the credentials for
that. Everybody may read all of it except the keys and secrets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from receiver.model import AppState, Https, Release
from receiver.names import Domain, dns_plugin, domain
from receiver.paths import AppPaths
from receiver.records import (
    FORMAT,
    Corrupt,
    Format,
    Record,
    decode,
    format_number,
    many,
    own,
    parsed,
    real,
    text,
    whole,
)
from receiver.settings import Settings

R = TypeVar("R", bound=Record)

MAX_HSTS = 2 * 366 * 86400
# A certificate is renewed when a third of its life is left: a month of an authority's usual 90 days.
LEFT = 1 / 3
# The pause after a first failure, which doubles with each further failure, and the longest pause (s).
FIRST_PAUSE, LONGEST_PAUSE = 900, 86400
# The least pause after an authority said "too many", and the longest pause that is accepted from it (s).
LIMITED, LONGEST_LIMITED = 6 * 3600, 8 * 86400
# The longest time that an admin may give name servers to publish a record (s).
LONGEST_WAIT = 3600
# Names that no public authority certifies (RFC 6761, RFC 8375), and that need no certificate here.
LOCAL = ("localhost", "invalid", "local", "localdomain")


class Origin(str, Enum):
    """`OWN`: an admin brought it (certs:add). `ACME`: shipit requested it, and renews it."""

    OWN = "own"
    ACME = "acme"


@dataclass(frozen=True)
class Installed(Record):
    """An installed certificate, which was checked. `fingerprint` names its file below keys/; times are epoch
    seconds."""

    origin: Origin = field(metadata=own(parsed(Origin)))
    names: tuple[str, ...] = field(metadata=own(many(text)))
    not_before: float = field(metadata=own(real))
    not_after: float = field(metadata=own(real))
    issuer: str = field(metadata=own(text))
    fingerprint: str = field(metadata=own(text))
    format: Format = field(default=FORMAT, metadata=own(format_number))

    def covers(self, name: Domain) -> bool:
        """Whether it is valid for this name, or for all that a wildcard name matches (RFC 6125: `*` is one label)."""
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names

    def due(self, now: float) -> bool:
        """Whether it is time to renew it."""
        return now >= self.not_after - (self.not_after - self.not_before) * LEFT

    def late(self, now: float) -> bool:
        """Whether it should be renewed already: half of the time for that has passed."""
        return now >= self.not_after - (self.not_after - self.not_before) * LEFT / 2


@dataclass(frozen=True)
class Try(Record):
    """The last request for a certificate: `failures` in a row, `next` when to ask again."""

    failures: int = field(metadata=own(whole()))
    last: float = field(metadata=own(real))
    next: float = field(metadata=own(real))
    why: str = field(metadata=own(text))
    format: Format = field(default=FORMAT, metadata=own(format_number))

    def again(self, now: float, why: str, *, limited: bool, until: float = 0) -> Try:
        """The record after one more failure. `until`: when an authority that said "too many" allows the next
        request."""
        pause = min(FIRST_PAUSE * 2 ** min(self.failures, 10), LONGEST_PAUSE)
        pause = max(pause, LIMITED if limited else 0)
        named = min(until, now + LONGEST_LIMITED) if limited else 0
        return Try(self.failures + 1, now, max(now + pause, named), why)


NEVER = Try(0, 0.0, 0.0, "")


@dataclass(frozen=True)
class Dns(Record):
    """The plugin of certbot that proves an app's names by DNS. `wait`: how long (s) it waits before the authority
    looks; 0: the plugin's own default."""

    plugin: str = field(metadata=own(parsed(dns_plugin)))
    wait: int = field(metadata=own(whole(LONGEST_WAIT)))
    format: Format = field(default=FORMAT, metadata=own(format_number))


@dataclass(frozen=True)
class Tls(Record):
    """What a release keeps of `tls:` in its shipit.yml. `hsts`: for how long (s) browsers shall refuse plain HTTP."""

    hsts: int = field(default=0, metadata=own(whole(MAX_HSTS)))


@dataclass(frozen=True)
class Served:
    """A server block for HTTPS: the certificate's file and the names it is for."""

    file: Path
    names: tuple[Domain, ...]


@dataclass(frozen=True)
class Secure:
    """How an app is served by HTTPS. `challenges`: the directory for an authority's challenges, if one is to be asked.
    `http2`: whether this nginx has the directive of that name (older ones: a word in `listen`)."""

    challenges: Path | None = None
    servers: tuple[Served, ...] = ()
    hsts: int = 0
    http2: bool = True

    def names(self) -> frozenset[Domain]:
        """The names that are served by HTTPS."""
        return frozenset(name for server in self.servers for name in server.names)


PLAIN = Secure()


class Certificates:
    """What is installed for one app. A missing file means no certificate; a damaged one raises Corrupt."""

    def __init__(self, paths: AppPaths) -> None:
        self.paths = paths

    @property
    def own_record(self) -> Path:
        return self.paths.tls / "own.json"

    def record(self, name: Domain) -> Path:
        return self.paths.tls / "acme" / f"{name}.json"

    def try_record(self, name: Domain) -> Path:
        return self.paths.tls / "tries" / f"{name}.json"

    @property
    def dns_record(self) -> Path:
        return self.paths.tls / "dns.json"

    @property
    def dns_credentials(self) -> Path:
        return self.paths.tls / "secrets/dns"

    def file(self, known: Installed) -> Path:
        return self.paths.tls / "keys" / f"{known.fingerprint}.pem"

    def dns(self, settings: Settings) -> Dns | None:
        """How its names are proved by DNS: the app's own way, else the server's; None: by HTTP instead."""
        try:
            if found := _read(Dns, self.dns_record):
                return found
        except Corrupt:
            pass
        return Dns(settings.acme_dns, 0) if settings.acme_dns else None

    def own(self) -> Installed | None:
        return _read(Installed, self.own_record)

    def acme(self, name: Domain) -> Installed | None:
        return _read(Installed, self.record(name))

    def all_acme(self) -> dict[Domain, Installed]:
        """The requested certificates, by name."""
        found = sorted((self.paths.tls / "acme").glob("*.json")) if self.paths.tls.is_dir() else []
        known = {domain(path.name.removesuffix(".json")): _read(Installed, path) for path in found}
        return {name: one for name, one in known.items() if one is not None}

    def last_try(self, name: Domain) -> Try:
        try:
            return _read(Try, self.try_record(name)) or NEVER
        except Corrupt:
            return NEVER

    def serving(self, name: Domain, now: float) -> Installed | None:
        """The certificate for a name: the admin's own before a requested one, and an expired one only if there is no
        other."""
        own_one, asked = self.own(), self.acme(name)
        both = [one for one in (own_one, asked) if one is not None and one.covers(name)]
        return next((one for one in both if now < one.not_after), both[0] if both else None)


def _read(kind: type[R], path: Path) -> R | None:
    try:
        return decode(kind, path.read_bytes(), path.name)
    except FileNotFoundError:
        return None


def asks(state: AppState, settings: Settings) -> bool:
    """Whether shipit requests certificates for the app's names."""
    return state.https is Https.ON or (state.https is Https.DEFAULT and settings.auto_tls)


def can_ask(name: Domain, *, dns: bool) -> bool:
    """Whether an authority could give a certificate for this name: not for an address, and for a wildcard only by DNS
    (RFC 8555, 8.3 and 8.4)."""
    last = name.rpartition(".")[2]
    return "." in name and (dns or not name.startswith("*.")) and last not in LOCAL and not last.isdigit()


def wanting(
    known: Certificates, state: AppState, names: Iterable[Domain], settings: Settings, now: float
) -> list[Domain]:
    """The names that need a certificate, or a renewal, even if it is too early for another try."""
    if not asks(state, settings):
        return []
    found = []
    dns = known.dns(settings) is not None
    for name in names:
        serving = known.serving(name, now)
        if can_ask(name, dns=dns) and (
            serving is None or (serving.origin is Origin.ACME and serving.due(now)) or now >= serving.not_after
        ):
            found.append(name)
    return found


def patient(known: Certificates, names: Iterable[Domain], now: float) -> list[Domain]:
    """Those of the names that may be asked for now: their last failure is long enough ago."""
    return [name for name in names if now >= known.last_try(name).next]


def hsts(release: Release | None) -> int:
    """The `hsts` seconds of the release's shipit.yml."""
    kept = release.capabilities.get("tls") if release is not None else None
    found = kept.get("hsts", 0) if isinstance(kept, Mapping) else 0
    return found if type(found) is int and 0 <= found <= MAX_HSTS else 0


def secure(
    paths: AppPaths, state: AppState, release: Release | None, names: Iterable[Domain], settings: Settings,
    *, http2: bool = True,
) -> Secure:  # fmt: skip
    """How the app is served by HTTPS, from what is installed. A damaged record counts as none; doctor reports it."""
    challenges = paths.layout.challenges if asks(state, settings) else None
    if state.https is Https.OFF or not paths.tls.is_dir():
        return Secure(challenges)
    known, now = Certificates(paths), time.time()
    by_file: dict[Path, list[Domain]] = {}
    for name in names:
        with suppress(Corrupt):
            if (one := known.serving(name, now)) is not None:
                by_file.setdefault(known.file(one), []).append(name)
    servers = tuple(Served(file, tuple(served)) for file, served in by_file.items())
    return Secure(challenges, servers, hsts(release), http2)
