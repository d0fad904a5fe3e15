"""What an operational capability is: something that an app asks for in a section of its shipit.yml, or that reacts to
how its releases end. Each is one module here and one row of ops/all.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar, runtime_checkable

from receiver.ledger.ledger import Ledger
from receiver.manifest.section import Said
from receiver.model import ProcessType, Release
from receiver.names import TypeName
from receiver.records import FORMAT, Record, plain, read_record, rows


class What(str, Enum):
    """What happened to a release.

    `OPENED`: it has its number and its worker. `LIVE`, `FAILED`, `CANCELLED`: its verdict, exactly one of these.
    `RETIRED`: a newer one replaced it, and its processes were told to end. `CRASHED`: one of its processes ends again
    and again. `UNREACHED`: it is live, and what the app follows (`git:sync`) cannot be fetched, or is refused.
    `RUN_FAILED`: a scheduled run did not end with 0. `CERTIFICATE`: one of its names has no certificate, or one that
    ends soon. `STORAGE`: the app's data nears its quota (`storage:quota`), or exceeds it.
    """

    OPENED = "opened"
    LIVE = "live"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETIRED = "retired"
    CRASHED = "crashed"
    UNREACHED = "unreached"
    RUN_FAILED = "run-failed"
    CERTIFICATE = "certificate"
    STORAGE = "storage"


@dataclass(frozen=True)
class Event:
    """`release` is its record as it is now (its `reason` says why it failed). `process` and `index` are set for CRASHED
    and RUN_FAILED only, `reason` for UNREACHED, RUN_FAILED, CERTIFICATE and STORAGE."""

    what: What
    release: Release
    ledger: Ledger
    process: TypeName = TypeName("")
    index: int = 0
    reason: str = ""


class Capability(Protocol):
    """`key` names its section in shipit.yml and in the record, `schema` is that section's JSON Schema (2020-12), `kept`
    the type of record that a release keeps of it, and `hears` the events that it wants."""

    @property
    def key(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, Any]: ...

    @property
    def kept(self) -> type[Record]: ...

    @property
    def hears(self) -> frozenset[What]: ...

    def read(self, said: Said) -> Record | None:
        """What the release keeps of the section, which fits the schema; None if it asks for nothing. Pure. Mistakes
        that the schema cannot express go to `said.wrong`, and then the push is refused."""

    def on(self, event: Event) -> None:
        """React to the event, as `shipit`, in a process of its own with a limit of LIMIT seconds (story/verdict.py).
        Nothing here can change the release's verdict."""


@runtime_checkable
class Runs(Protocol):
    """A capability that also runs processes in each release; callers ask with isinstance.

    It only names process types. The engine makes units of them, with the app's user, sandbox, limits and config vars;
    they start, change and end with the release; and `logs`, `ps`, `run`, pruning and doctor include them without
    further work.
    """

    def processes(self, kept: Any) -> tuple[ProcessType, ...]:
        """The process types for what the release keeps: one process of each, or scheduled runs if it has a `schedule`.
        Pure; none may be named `web`."""


@dataclass(frozen=True)
class SectionOf:
    """A capability's section in the form that the manifest reads (manifest.section.Section)."""

    capability: Capability

    @property
    def key(self) -> str:
        return self.capability.key

    @property
    def schema(self) -> Mapping[str, Any]:
        return self.capability.schema

    def read(self, said: Said) -> Any:
        kept = self.capability.read(said)
        return None if kept is None else plain(kept)

    def processes(self, kept: Any) -> tuple[ProcessType, ...]:
        if not isinstance(self.capability, Runs):
            return ()
        return self.capability.processes(read_record(self.capability.kept, kept, FORMAT, self.key))


R = TypeVar("R", bound=Record)


def section(capability: Capability, release: Release) -> Record | None:
    """What the release keeps for the capability; raises Corrupt if it is not valid."""
    return kept_as(capability.key, capability.kept, release)


def kept_as(key: str, kind: type[R], release: Release) -> R | None:
    """The same by the capability's key and the record that it keeps."""
    kept = release.capabilities.get(key)
    if kept is None:
        return None
    # If the release's base was made by a newer shipit, the section is in that one's form.
    known = {name: value for name, value in kept.items() if name in rows(kind)}
    return read_record(kind, known, release.format, key)
