"""The values that all parts share: a release, its processes, an app's state. Each is a record (records.py): one row
says everything about a field.

`decode_*` accept only what `encode` writes, or wrote before a field was added; unknown fields of a newer shipit are
kept. The agent reads these files although `shipit` wrote them, so decoding is the trust boundary: every name goes
through names.py and every number has a range. The checksum only shows damage: whoever may write the file can write a
fitting one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from receiver import names
from receiver.errors import NotFound
from receiver.names import AppName, Branch, ConfigKey, Domain, Oid, TypeName
from receiver.records import (
    FORMAT,
    Format,
    Newer,
    Record,
    carried,
    decode,
    flag,
    format_number,
    many,
    nested,
    objects,
    optional,
    own,
    pairs,
    parsed,
    real,
    text,
    whole,
)
from receiver.schedule import Schedule
from receiver.serving import Serving
from receiver.settings import LONGEST_WARM

WEB = TypeName("web")

APP = parsed(names.app_name)
# A release's number; 0 means none.
NUMBER = whole(10**9)
DOMAINS = many(parsed(names.domain))
FORMATION = pairs(parsed(names.type_name), whole(100))
PAGES = parsed(lambda text: text and names.pages(text))
STORAGE = pairs(parsed(names.slug_path), parsed(names.slug_path))


class Status(str, Enum):
    """How far a release came. A release stays `LIVE` when a newer one replaces it: the ledger's `current` says which
    serves."""

    BUILDING = "building"
    STARTING = "starting"
    LIVE = "live"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (Status.LIVE, Status.FAILED, Status.CANCELLED)


class Change(str, Enum):
    """What a release changed. Where its files came from is its origin, whatever it changed."""

    DEPLOY = "deploy"
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


class Https(str, Enum):
    """Whether certificates are requested for an app's names: `DEFAULT`: as the server's settings say; `OFF`: no HTTPS
    at all."""

    DEFAULT = ""
    ON = "on"
    OFF = "off"


class CheckKind(str, Enum):
    HTTP = "http"
    TCP = "tcp"
    COMMAND = "command"
    NOTIFY = "notify"
    UPTIME = "uptime"


@dataclass(frozen=True)
class Check(Record):
    """A healthcheck. `timeout` (s, 1–3600) limits the whole wait; `settle` (s, 0–300) is how long a process without any
    other check must stay up; `status` is the accepted answer: `0` means any below 500."""

    kind: CheckKind = field(metadata=own(parsed(CheckKind)))
    path: str = field(default="/", metadata=own(text))
    status: int = field(default=0, metadata=own(whole(599)))
    content: str = field(default="", metadata=own(text))
    command: str = field(default="", metadata=own(text))
    timeout: int = field(default=60, metadata=own(whole(3600, low=1)))
    settle: int = field(default=2, metadata=own(whole(300)))


@dataclass(frozen=True)
class Limits(Record):
    """The limits of one process: memory in MiB, CPU in percent of one core, tasks; 0 = the server's default."""

    memory: int = field(default=0, metadata=own(whole(2**22)))
    cpu: int = field(default=0, metadata=own(whole(100_000)))
    tasks: int = field(default=0, metadata=own(whole(2**22)))


@dataclass(frozen=True)
class ProcessType(Record):
    """A line of the Procfile and what shipit.yml adds. `drain`: seconds (0–3600) between SIGTERM and SIGKILL. One with a
    `schedule` runs by the clock and has no place in the formation."""

    type: TypeName = field(metadata=own(parsed(names.type_name)))
    command: str = field(metadata=own(text))
    listen: Listen = field(metadata=own(parsed(Listen)))
    check: Check = field(metadata=own(nested(Check)))
    drain: int = field(default=30, metadata=own(whole(3600)))
    limits: Limits = field(default_factory=Limits, metadata=own(nested(Limits)))
    schedule: Schedule | None = field(default=None, metadata=own(optional(nested(Schedule)), since=Format(1, 2)))


@dataclass(frozen=True)
class ProcessEnv(Record):
    """What the runtimes of a release add to the environment of its processes. `path`: directories of the slug, first on
    the PATH. `variables`: names and values; config vars override them. `socket`: the same for a process that listens on
    $SOCKET; these override config vars. In a value `$SLUG`, `$SOCKET` and the variable's own name are replaced."""

    path: tuple[str, ...] = field(default=(), metadata=own(many(parsed(names.slug_path))))
    variables: tuple[tuple[str, str], ...] = field(default=(), metadata=own(pairs(text, text)))
    socket: tuple[tuple[str, str], ...] = field(default=(), metadata=own(pairs(text, text)))


@dataclass(frozen=True)
class Origin(Record):
    """Where the files of a release came from.

    `kind` names the source (sources/all.py). `id` identifies the files: the commit that they became or were. `title`,
    `author` and `ref` are one printable line each, as far as the source knows them: a commit's subject, its author, the
    branch it was pushed to; or the name of a file.
    """

    kind: str = field(metadata=own(text))
    id: str = field(metadata=own(text))
    title: str = field(default="", metadata=own(text))
    author: str = field(default="", metadata=own(text))
    ref: str = field(default="", metadata=own(text))

    @property
    def commit(self) -> Oid | None:
        """The commit that holds the files; None if they are no tree."""
        return names.oid(self.id) if names.is_oid(self.id) else None

    @property
    def short(self) -> str:
        """`id` in a short form for people."""
        return self.id[:8] if self.commit else self.id[:20]


@dataclass(frozen=True)
class Release(Record):
    """A release as in `release.json`. Its status, and what is known only later, change; everything else never does.

    Numbers are those of releases of the same app, 0 for none. Times are seconds since the epoch. `change`, `by` and
    `created` say what was asked for, by whom and when. The other fields:

    - `key`: the fingerprint of the ssh key that asked for it ("": asked on the server, or by a timer)
    - `previous`: the release that served when this one was opened
    - `target`: the one that a rollback returns to
    - `fresh`: the build uses no cached environment
    - `slug`: the release whose tree it runs; its own number if it was built, 0 if nothing was shipped yet
    - `shares`: the releases that this tree has links to; `environment` and `environment_key` describe only the first of
      them, for an older shipit
    - `static`: the directory of the tree that nginx serves ("": none)
    - `image`: its processes are containers of the image that the slug names
    - `machine`: its process is a virtual machine with the disk in the slug
    - `config_base`: the release whose config vars it starts from
    - `env`: the commit's own defaults of config vars
    - `domains`: the names that its shipit.yml asks for
    - `storage`: which paths of the app's data are mounted at which paths of its tree
    - `apt`: the Debian packages that it needs
    - `formation`: how many processes of each type run
    - `serving`: how nginx serves it
    - `warm`: for how many seconds the release that it replaces is kept running for a rollback
    - `took_over`: the release that was kept warm and whose processes this one goes on with; 0: it has its own
    - `capabilities`: what each operational capability keeps of its section of shipit.yml (ops/base.py)
    - `digest`: of the finished slug (disk.digest_tree)
    - `seconds`: how long each step of its making took; `reason`: why it did not go live
    """

    app: AppName = field(metadata=own(APP))
    number: int = field(metadata=own(whole(10**9, low=1)))
    change: Change = field(metadata=own(parsed(Change)))
    status: Status = field(metadata=own(parsed(Status)))
    by: str = field(metadata=own(text))
    created: float = field(metadata=own(real))
    format: Format = field(default=FORMAT, metadata=own(format_number, since=Format(1, 1)))
    key: str = field(default="", metadata=own(text, since=Format(1, 4)))
    slug: int = field(default=0, metadata=carried(NUMBER))
    environment: int = field(default=0, metadata=carried(NUMBER))
    config_base: int = field(default=0, metadata=own(NUMBER))
    target: int = field(default=0, metadata=own(NUMBER))
    took_over: int = field(default=0, metadata=own(NUMBER, since=Format(1, 1)))
    warm: int = field(default=0, metadata=carried(whole(LONGEST_WARM), since=Format(1, 1)))
    fresh: bool = field(default=False, metadata=own(flag))
    domains: tuple[Domain, ...] = field(default=(), metadata=carried(DOMAINS, since=Format(1, 1)))
    environment_key: str = field(default="", metadata=carried(text))
    origin: Origin | None = field(default=None, metadata=carried(optional(nested(Origin))))
    message: str = field(default="", metadata=own(text))
    runtime: str = field(default="", metadata=carried(text))
    process_env: ProcessEnv | None = field(
        default=None, metadata=carried(optional(nested(ProcessEnv)), since=Format(1, 2))
    )
    shares: tuple[int, ...] = field(default=(), metadata=carried(many(NUMBER), since=Format(1, 2)))
    static: str = field(default="", metadata=carried(PAGES, since=Format(1, 2)))
    storage: tuple[tuple[str, str], ...] = field(default=(), metadata=carried(STORAGE, since=Format(1, 3)))
    image: bool = field(default=False, metadata=carried(flag, since=Format(1, 3)))
    machine: bool = field(default=False, metadata=carried(flag, since=Format(1, 3)))
    apt: tuple[str, ...] = field(default=(), metadata=carried(many(parsed(names.package)), since=Format(1, 4)))
    previous: int = field(default=0, metadata=own(NUMBER))
    release_command: str = field(default="", metadata=carried(text))
    processes: tuple[ProcessType, ...] = field(default=(), metadata=carried(many(nested(ProcessType))))
    formation: tuple[tuple[TypeName, int], ...] = field(default=(), metadata=carried(FORMATION))
    build_config: tuple[str, ...] = field(default=(), metadata=carried(many(parsed(names.build_config))))
    env: tuple[tuple[ConfigKey, str], ...] = field(default=(), metadata=carried(pairs(parsed(names.config_key), text)))
    serving: Serving = field(default_factory=Serving, metadata=carried(nested(Serving), since=Format(1, 2)))
    digest: str = field(default="", metadata=carried(text))
    capabilities: Mapping[str, Any] = field(
        default_factory=dict, hash=False, metadata=carried(objects, since=Format(1, 1))
    )
    finished: float = field(default=0.0, metadata=own(real))
    seconds: tuple[tuple[str, float], ...] = field(default=(), metadata=own(pairs(text, real)))
    reason: str = field(default="", metadata=own(text))

    @classmethod
    def upgraded(cls, data: dict[str, Any], format: Format) -> dict[str, Any]:
        """Before format 1.1 there was no origin, only a commit and its description."""
        if format >= Format(1, 1) or not {"commit", "branch", "subject", "author", "source"} <= data.keys():
            return data
        data = dict(data)
        commit, branch, title, author = (data.pop(name) for name in ("commit", "branch", "subject", "author"))
        said = {"kind": "git", "id": commit, "title": title, "author": author, "ref": branch or ""}
        data["origin"] = None if commit is None else said
        was = data.pop("source")
        data["change"] = Change.DEPLOY.value if was == "git" else was
        return data

    @property
    def name(self) -> str:
        return f"v{self.number}"

    @property
    def commit(self) -> Oid | None:
        """The commit that holds its files, if they are a tree."""
        return self.origin.commit if self.origin else None

    @property
    def builds(self) -> bool:
        """Whether it has a slug of its own; otherwise it runs that of an earlier release, or nothing yet."""
        return self.slug == self.number

    @property
    def runs_from(self) -> frozenset[int]:
        """The releases whose files its processes use: its slug's, and those that the slug has links to."""
        return frozenset({self.slug, self.environment, *self.shares} - {0})

    @property
    def needs(self) -> frozenset[int]:
        """The releases whose files must stay on the disk for as long as this one can serve."""
        return self.runs_from | {self.number, self.runs_as}

    @property
    def runs_as(self) -> int:
        """The number in the names of its units, sockets and config vars: of the release that started the processes."""
        return self.took_over or self.number

    @property
    def is_known(self) -> bool:
        """Whether this shipit knows every field that the record may have."""
        return self.format <= FORMAT

    def must_be_known(self) -> None:
        """Raises Newer if a newer shipit wrote the record; for a caller that starts something from it."""
        if not self.is_known:
            raise Newer(f"The record of {self.app} {self.name}", self.format)

    def process(self, kind: TypeName) -> ProcessType:
        for process in self.processes:
            if process.type == kind:
                return process
        known = ", ".join(p.type for p in self.processes) or "none"
        raise NotFound(f"{self.app} has no process type {kind!r}.", hint=f"It has: {known}")

    @property
    def scheduled(self) -> list[tuple[ProcessType, Schedule]]:
        """The process types that run by the clock."""
        return [(process, process.schedule) for process in self.processes if process.schedule]

    def count(self, kind: TypeName) -> int:
        return dict(self.formation).get(kind, 0)

    def running(self) -> list[tuple[ProcessType, int]]:
        """Every process of the formation as (process, index from 1)."""
        return [(p, i) for p in self.processes for i in range(1, self.count(p.type) + 1)]


@dataclass(frozen=True)
class AppState(Record):
    """What is true of an app whichever release is live; `app.json`.

    - `domains`: the names that an admin gave it; `approved`: those that its shipit.yml may ask for
    - `without_default`: it does not answer at APP.DOMAIN of the server, only at its other names
    - `suspended`: the process types that the clock does not start
    - `limits`: those that were set on the server, as `web.memory` (ops/limits.py)
    - `formation`: the counts that were set on the server (`ps:scale`)
    - `quota`: the MiB that its data may take; 0: no limit, None: as the server's settings say
    - `storage`: what a command has mounted; the mounts of shipit.yml are not in it
    - `guarded`: nginx asks visitors for a name and a password (proxy/passwords.py)
    - `locked`: why nobody may change the app now ("": everybody may)
    """

    app: AppName = field(metadata=own(APP))
    created: float = field(metadata=own(real))
    format: Format = field(default=FORMAT, metadata=own(format_number, since=Format(1, 1)))
    branch: Branch | None = field(default=None, metadata=own(optional(parsed(names.branch))))
    domains: tuple[Domain, ...] = field(default=(), metadata=own(DOMAINS))
    approved: tuple[Domain, ...] = field(default=(), metadata=own(DOMAINS, since=Format(1, 1)))
    without_default: bool = field(default=False, metadata=own(flag, since=Format(1, 1)))
    suspended: tuple[TypeName, ...] = field(default=(), metadata=own(many(parsed(names.type_name)), since=Format(1, 2)))
    limits: tuple[tuple[str, int], ...] = field(
        default=(), metadata=own(pairs(parsed(names.limit_name), whole(2**22)), since=Format(1, 2))
    )
    keep: int = field(default=5, metadata=own(whole(1000, low=1)))
    pinned: tuple[int, ...] = field(default=(), metadata=own(many(NUMBER)))
    formation: tuple[tuple[TypeName, int], ...] = field(default=(), metadata=own(FORMATION))
    storage: tuple[tuple[str, str], ...] = field(default=(), metadata=own(STORAGE, since=Format(1, 3)))
    quota: int | None = field(default=None, metadata=own(optional(whole(2**30)), since=Format(1, 4)))
    stopped: bool = field(default=False, metadata=own(flag))
    guarded: bool = field(default=False, metadata=own(flag, since=Format(1, 3)))
    allow_force_push: bool = field(default=False, metadata=own(flag))
    allow_delete: bool = field(default=False, metadata=own(flag))
    locked: str = field(default="", metadata=own(text))
    https: Https = field(default=Https.DEFAULT, metadata=own(parsed(Https), since=Format(1, 3)))


def decode_release(raw: bytes) -> Release:
    """Parse `release.json`; raises Corrupt or Newer."""
    return decode(Release, raw, "release.json")


def decode_app_state(raw: bytes) -> AppState:
    """Parse `app.json`; raises Corrupt or Newer."""
    return decode(AppState, raw, "app.json")
