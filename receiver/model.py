"""The values everything else speaks about: a release, its processes, an app's state, and their JSON.

`decode_*` accept only what `encode` writes, or wrote before a field or the checksum was added: any other missing field,
an unknown or a mistyped one raises Corrupt. The agent reads these files although `shipit` wrote them, so decoding is the
trust boundary: every name goes through names.py and every number has a range. The checksum is no part of that: it shows
damage, and whoever may write the file can make it fit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

from receiver import names
from receiver.errors import Failure, HostFault, NotFound
from receiver.names import AppName, Branch, ConfigKey, Domain, Oid, TypeName
from receiver.settings import LONGEST_WARM

T = TypeVar("T")

WEB = TypeName("web")
# What a file with a checksum begins with; eight hexadecimal digits follow, and the end of that line.
_SUM = b'{\n "sum": "'


class Corrupt(HostFault):
    """A file of the ledger is not what shipit wrote. Nothing is guessed from it; what runs goes on running."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Mend it: shipit doctor --fix")


class Status(str, Enum):
    """How far a release came. `LIVE` is kept when a newer one replaces it: the ledger's `current` says which serves."""

    BUILDING = "building"
    STARTING = "starting"
    LIVE = "live"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (Status.LIVE, Status.FAILED, Status.CANCELLED)


class Source(str, Enum):
    """How a release arrived."""

    GIT = "git"
    CONFIG = "config"
    SCALE = "scale"
    ROLLBACK = "rollback"
    REBUILD = "rebuild"
    RESTART = "restart"


class Listen(str, Enum):
    """Where a process takes requests: its own unix socket ($SOCKET), a TCP port ($PORT) behind a front, or nowhere."""

    SOCKET = "socket"
    PORT = "port"
    NONE = "none"


class CheckKind(str, Enum):
    HTTP = "http"
    TCP = "tcp"
    COMMAND = "command"
    NOTIFY = "notify"
    UPTIME = "uptime"


@dataclass(frozen=True)
class Check:
    """A healthcheck. `timeout` (s, 1–3600) bounds the whole wait, `settle` (s, 0–300) is how long a process without
    anything to ask must stay up, `status` the accepted answers: `0` means any below 500."""

    kind: CheckKind
    path: str = "/"
    status: int = 0
    content: str = ""
    command: str = ""
    timeout: int = 60
    settle: int = 2


@dataclass(frozen=True)
class Limits:
    """Of one process: memory in MiB, CPU in percent of one core, tasks; 0 = the server's default."""

    memory: int = 0
    cpu: int = 0
    tasks: int = 0


@dataclass(frozen=True)
class ProcessType:
    """A line of the Procfile and what shipit.yml adds. `drain`: seconds (0–3600) between SIGTERM and SIGKILL."""

    type: TypeName
    command: str
    listen: Listen
    check: Check
    drain: int = 30
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Release:
    """A release as `release.json` holds it. Immutable in what it is; `status` and what follows it in time change.

    `slug` is the release whose tree this one runs (its own number if it was built, 0 if nothing was shipped yet),
    `environment` the release whose `.venv` that tree uses, `config_base` the one whose config vars it starts from
    (0: none), `target` the one a rollback returns to, `previous` the one that served when it was opened, `took_over`
    the one that was kept warm and whose processes this one goes on with (0: it has its own). `formation` is how many
    processes of each type run, `fresh` asks for a build without any cached environment, `env` are the commit's own
    defaults of config vars, `domains` what its shipit.yml asks for, `warm` is for how long (s) the release that it replaces is kept warm. Times are seconds
    since the epoch.
    """

    app: AppName
    number: int
    source: Source
    status: Status
    by: str
    created: float
    slug: int = 0
    environment: int = 0
    config_base: int = 0
    target: int = 0
    took_over: int = 0
    warm: int = 0
    fresh: bool = False
    domains: tuple[Domain, ...] = ()
    environment_key: str = ""
    commit: Oid | None = None
    branch: Branch | None = None
    subject: str = ""
    author: str = ""
    message: str = ""
    runtime: str = ""
    previous: int = 0
    release_command: str = ""
    processes: tuple[ProcessType, ...] = ()
    formation: tuple[tuple[TypeName, int], ...] = ()
    build_config: tuple[str, ...] = ()
    env: tuple[tuple[ConfigKey, str], ...] = ()
    digest: str = ""
    finished: float = 0.0
    seconds: tuple[tuple[str, float], ...] = ()
    reason: str = ""

    @property
    def name(self) -> str:
        return f"v{self.number}"

    @property
    def builds(self) -> bool:
        """Whether it has a slug of its own; else it runs that of an earlier release, or nothing yet."""
        return self.slug == self.number

    @property
    def runs_from(self) -> frozenset[int]:
        """The releases whose files its processes run from: its slug's, and its environment's."""
        return frozenset({self.slug, self.environment} - {0})

    @property
    def needs(self) -> frozenset[int]:
        """The releases of which something must stay on the disk for as long as this one can serve."""
        return self.runs_from | {self.number, self.runs_as}

    @property
    def runs_as(self) -> int:
        """The release that its processes were started as: their units, sockets and config vars have this number."""
        return self.took_over or self.number

    def process(self, kind: TypeName) -> ProcessType:
        for process in self.processes:
            if process.type == kind:
                return process
        known = ", ".join(p.type for p in self.processes) or "none"
        raise NotFound(f"{self.app} has no process type {kind!r}.", hint=f"It has: {known}")

    def count(self, kind: TypeName) -> int:
        return dict(self.formation).get(kind, 0)

    def running(self) -> list[tuple[ProcessType, int]]:
        """Every process of the formation as (process, index from 1)."""
        return [(p, i) for p in self.processes for i in range(1, self.count(p.type) + 1)]


@dataclass(frozen=True)
class AppState:
    """What is true of an app whatever release is live; `app.json`.

    `domains` are the names that an admin gave it, `approved` those that its shipit.yml may ask for, `without_default`
    says that it does not answer at APP.DOMAIN of the server beside others.
    """

    app: AppName
    created: float
    branch: Branch | None = None
    domains: tuple[Domain, ...] = ()
    approved: tuple[Domain, ...] = ()
    without_default: bool = False
    keep: int = 5
    pinned: tuple[int, ...] = ()
    formation: tuple[tuple[TypeName, int], ...] = ()
    stopped: bool = False
    allow_force_push: bool = False
    allow_delete: bool = False
    locked: str = ""


def encode(value: Release | AppState) -> bytes:
    """Canonical JSON, one trailing newline. Its first member, `sum`, is a checksum of every byte below its line."""
    text = json.dumps(_plain(value), indent=1, sort_keys=True, ensure_ascii=True)
    return _summed((text.removeprefix("{\n") + "\n").encode())


def _summed(rest: bytes) -> bytes:
    """A whole file: the first two lines, which hold the checksum, and the rest."""
    # CRC-32 misses no change within 32 bits in a row, and 1 of 2³² others. hashlib would take 2.5 ms to import.
    return b'%s%08x",\n%s' % (_SUM, zlib.crc32(rest), rest)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


class _Reader:
    """One JSON object being read: every field is taken once, by type; what is left over is an error."""

    def __init__(self, data: object, what: str) -> None:
        if not isinstance(data, dict):
            raise Corrupt(f"{what} is not an object.")
        self._data = dict(data)
        self._what = what

    def take(self, name: str, kind: type, *, low: float = 0, high: float = 2**53, missing: Any = None) -> Any:
        """`missing`: what a record says that an older version wrote, which did not know this field."""
        if name not in self._data and missing is None:
            raise Corrupt(f"{self._what}: {name} is missing.")
        value = self._data.pop(name, missing)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise Corrupt(f"{self._what}: {name} is not a {kind.__name__}.")
        if isinstance(value, (int, float)) and not low <= value <= high:
            raise Corrupt(f"{self._what}: {name} is out of range.")
        return value

    def optional(self, name: str, kind: type) -> Any:
        if self._data.get(name, ...) is None:
            del self._data[name]
            return None
        return self.take(name, kind)

    def done(self) -> None:
        if self._data:
            raise Corrupt(f"{self._what}: unknown field {sorted(self._data)[0]!r}.")


def decode_release(raw: bytes) -> Release:
    """Parse `release.json`; raises Corrupt and nothing else."""
    return _guard(lambda: _release(_load(raw, "release.json")))


def decode_app_state(raw: bytes) -> AppState:
    """Parse `app.json`; raises Corrupt and nothing else."""
    return _guard(lambda: _app_state(_load(raw, "app.json")))


def _guard(parse: Callable[[], T]) -> T:
    try:
        return parse()
    except Corrupt:
        raise
    except (Failure, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Corrupt(f"The ledger holds a bad value: {error}") from error


def _load(raw: bytes, what: str) -> _Reader:
    if len(raw) > 4 * 2**20:
        raise Corrupt(f"{what} is larger than 4 MiB.")
    # An older version wrote no sum. Damage does not lead there: all of the line would have to go, and leave JSON.
    if raw.startswith(_SUM):
        rest = raw[len(_summed(b"")) :]
        if raw != _summed(rest):
            raise Corrupt(f"{what} does not fit its checksum.")
        raw = b"{" + rest
    return _Reader(json.loads(raw), what)


def _pairs(value: list[Any], kind: type) -> tuple[tuple[Any, Any], ...]:
    out = []
    for item in value:
        if not isinstance(item, list) or len(item) != 2 or type(item[0]) is not str:
            raise Corrupt("The ledger holds a bad pair.")
        number = float(item[1]) if kind is float and type(item[1]) in (int, float) else item[1]
        if type(number) is not kind or not isinstance(number, (int, float)) or not 0 <= number <= 2**31:
            raise Corrupt("The ledger holds a bad number.")
        out.append((item[0], number))
    return tuple(out)


def decode_formation(value: list[Any]) -> tuple[tuple[TypeName, int], ...]:
    """Parse `[["web", 2], ...]`: known names, counts 0–100."""
    pairs = _pairs(value, int)
    if any(count > 100 for _, count in pairs):
        raise Corrupt("The ledger holds a count above 100.")
    return tuple((names.type_name(kind), count) for kind, count in pairs)


def _process(data: object) -> ProcessType:
    r = _Reader(data, "process")
    c = _Reader(r.take("check", dict), "check")
    check = Check(
        kind=CheckKind(c.take("kind", str)), path=c.take("path", str), status=c.take("status", int, high=599),
        content=c.take("content", str), command=c.take("command", str),
        timeout=c.take("timeout", int, low=1, high=3600), settle=c.take("settle", int, high=300),
    )  # fmt: skip
    c.done()
    m = _Reader(r.take("limits", dict), "limits")
    limits = Limits(
        memory=m.take("memory", int, high=2**22), cpu=m.take("cpu", int, high=100_000),
        tasks=m.take("tasks", int, high=2**22),
    )  # fmt: skip
    m.done()
    process = ProcessType(
        type=names.type_name(r.take("type", str)), command=r.take("command", str),
        listen=Listen(r.take("listen", str)), check=check, drain=r.take("drain", int, high=3600), limits=limits,
    )  # fmt: skip
    r.done()
    return process


def _release(r: _Reader) -> Release:
    commit, branch = r.optional("commit", str), r.optional("branch", str)
    release = Release(
        app=names.app_name(r.take("app", str)),
        number=r.take("number", int, low=1, high=10**9),
        source=Source(r.take("source", str)),
        status=Status(r.take("status", str)),
        by=r.take("by", str),
        created=r.take("created", float),
        slug=r.take("slug", int, high=10**9),
        environment=r.take("environment", int, high=10**9),
        config_base=r.take("config_base", int, high=10**9),
        target=r.take("target", int, high=10**9),
        took_over=r.take("took_over", int, high=10**9, missing=0),
        warm=r.take("warm", int, high=LONGEST_WARM, missing=0),
        fresh=r.take("fresh", bool),
        domains=tuple(names.domain(item) for item in r.take("domains", list, missing=[])),
        environment_key=r.take("environment_key", str),
        commit=None if commit is None else names.oid(commit),
        branch=None if branch is None else names.branch(branch),
        subject=r.take("subject", str),
        author=r.take("author", str),
        message=r.take("message", str),
        runtime=r.take("runtime", str),
        previous=r.take("previous", int, high=10**9),
        release_command=r.take("release_command", str),
        processes=tuple(_process(item) for item in r.take("processes", list)),
        formation=decode_formation(r.take("formation", list)),
        build_config=tuple(names.config_key(item) for item in r.take("build_config", list)),
        env=_env(r.take("env", list)),
        digest=r.take("digest", str),
        finished=r.take("finished", float),
        seconds=_pairs(r.take("seconds", list), float),
        reason=r.take("reason", str),
    )
    r.done()
    return release


def _env(value: list[Any]) -> tuple[tuple[ConfigKey, str], ...]:
    for item in value:
        if not isinstance(item, list) or len(item) != 2 or not all(type(part) is str for part in item):
            raise Corrupt("The ledger holds a bad default of a config var.")
    return tuple((names.config_key(key), text) for key, text in value)


def _app_state(r: _Reader) -> AppState:
    branch = r.optional("branch", str)
    state = AppState(
        app=names.app_name(r.take("app", str)),
        created=r.take("created", float),
        branch=None if branch is None else names.branch(branch),
        domains=tuple(names.domain(item) for item in r.take("domains", list)),
        approved=tuple(names.domain(item) for item in r.take("approved", list, missing=[])),
        without_default=r.take("without_default", bool, missing=False),
        keep=r.take("keep", int, low=1, high=1000),
        pinned=tuple(int(item) for item in r.take("pinned", list)),
        formation=decode_formation(r.take("formation", list)),
        stopped=r.take("stopped", bool),
        allow_force_push=r.take("allow_force_push", bool),
        allow_delete=r.take("allow_delete", bool),
        locked=r.take("locked", str),
    )
    r.done()
    return state
