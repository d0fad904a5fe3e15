"""What an operational capability is: something an app asks for in a section of its shipit.yml, or that follows how its
releases end. Each is one module here and one row of ops/all.py.
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

    `OPENED`: it has its number and its worker. `LIVE`, `FAILED`, `CANCELLED`: its verdict, one of them and once.
    `RETIRED`: a newer one replaced it, and its processes were told to end. `CRASHED`: one of its processes ends
    again and again. `UNREACHED`: it is live, and what the app follows (`git:sync`) cannot be fetched, or is refused.
    `RUN_FAILED`: a run by the clock did not end with 0. `CERTIFICATE`: one of its names has no certificate, or one that ends
    soon. `STORAGE`: its data takes most of what it may (`storage:quota`), or more.
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
    """`release` is its record as it is now (`reason` says why it failed); `process` and `index` are of CRASHED and
    RUN_FAILED only, `reason` of UNREACHED, RUN_FAILED, CERTIFICATE and STORAGE."""

    what: What
    release: Release
    ledger: Ledger
    process: TypeName = TypeName("")
    index: int = 0
    reason: str = ""


class Capability(Protocol):
    """`key` names its section in shipit.yml and in the record, `schema` is that section's JSON Schema (2020-12), `kept`
    the record that it is kept as, and `hears` the events that it wants."""

    @property
    def key(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, Any]: ...

    @property
    def kept(self) -> type[Record]: ...

    @property
    def hears(self) -> frozenset[What]: ...

    def read(self, said: Said) -> Record | None:
        """What the release keeps of its section, which fits the schema; None if that asks for nothing. Pure: what the
        schema cannot say is told to `said.wrong`, and the push is refused for it."""

    def on(self, event: Event) -> None:
        """Do what the event asks for, as `shipit`, in a process of its own that has LIMIT seconds (story/verdict.py).
        Whatever happens here, the release's verdict stands."""


@runtime_checkable
class Runs(Protocol):
    """A capability that has something run in each release, asked for by isinstance.

    It names process types and nothing else. So an engine makes the units, with the app's user, sandbox, limits and config
    vars; they start, change and end with the release; and `logs`, `ps`, `run`, pruning and doctor know them already.
    """

    def processes(self, kept: Any) -> tuple[ProcessType, ...]:
        """For what the release keeps of its section: one process of each type, or runs by the clock where it has a
        `schedule`. Pure; not called `web`."""


@dataclass(frozen=True)
class SectionOf:
    """A capability's section as the manifest reads it (manifest.section.Section)."""

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
    """What the release keeps for the capability; raises Corrupt when that is nothing it ever wrote."""
    return kept_as(capability.key, capability.kept, release)


def kept_as(key: str, kind: type[R], release: Release) -> R | None:
    """The same by the capability's key and the record that it keeps."""
    kept = release.capabilities.get(key)
    if kept is None:
        return None
    # A release that was made from a newer shipit's has the section as that one wrote it.
    known = {name: value for name, value in kept.items() if name in rows(kind)}
    return read_record(kind, known, release.format, key)
