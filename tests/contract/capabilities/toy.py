"""A capability with units, in one file: a section of shipit.yml, a process and a timer. Its only other place is its row in
ops/all.py."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from receiver.manifest.section import Said
from receiver.model import Check, CheckKind, Listen, ProcessType
from receiver.names import TypeName
from receiver.ops.base import Event, What
from receiver.records import Record, own, text
from receiver.schedule import schedule


@dataclass(frozen=True)
class Beat(Record):
    """What a release keeps of its `beat:`."""

    word: str = field(metadata=own(text))


class BeatCapability:
    """Writes the word of `beat:` beside the app's data: once by a process that stays, then every other second by the clock."""

    key = "beat"
    schema: Mapping[str, Any] = {"type": "string", "maxLength": 20}
    kept: type[Record] = Beat
    hears: frozenset[What] = frozenset()

    def read(self, said: Said) -> Beat | None:
        return Beat(said.data)

    def processes(self, kept: Beat) -> tuple[ProcessType, ...]:
        line, check = f"echo {shlex.quote(kept.word)} $SHIPIT_RELEASE >> $DATA_DIR", Check(CheckKind.UPTIME, settle=0)
        return (
            ProcessType(TypeName("beat"), f"{line}/stays && exec sleep infinity", Listen.NONE, check),
            ProcessType(TypeName("beats"), f"{line}/ticks", Listen.NONE, check, schedule=schedule("*:*:0/2")),
        )

    def on(self, event: Event) -> None:
        raise AssertionError("it hears nothing")
