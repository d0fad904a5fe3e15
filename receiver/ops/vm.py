"""`vm:` of shipit.yml: settings that only a virtual machine has (inside/machine.py reads them from the release's
record)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from receiver.manifest.section import Said
from receiver.ops.base import Event, What
from receiver.records import Record, own, text, whole

MOST = 2**24  # MiB of a disk


@dataclass(frozen=True)
class VM(Record):
    """`port`: where the machine takes requests, 0: the usual port. `data`: MiB of the app's data disk, 0: none.
    `firmware`: how it boots, "": as its disk was made for."""

    port: int = field(default=0, metadata=own(whole(65535)))
    data: int = field(default=0, metadata=own(whole(MOST)))
    firmware: str = field(default="", metadata=own(text))


class VMCapability:
    """See ops/base.py."""

    key = "vm"
    schema: Mapping[str, Any] = {
        "type": "object", "additionalProperties": False,
        "description": "Of a virtual machine (docs/vms.md)",
        "properties": {
            "port": {
                "type": "integer", "minimum": 1, "maximum": 65535,
                "description": "On which port of the machine requests are taken; 80 without it",
            },
            "data": {
                "type": "string", "pattern": "^[1-9][0-9]{0,6}[MGT]$",
                "x-message": "must be a size such as 500M, 20G or 1T",
                "description": "How large the disk is that outlives releases; without it there is none",
            },
            "firmware": {
                "enum": ["bios", "uefi"],
                "description": "What starts the disk, where that cannot be told by the disk",
            },
        },
    }  # fmt: skip
    kept: type[Record] = VM
    hears: frozenset[What] = frozenset()

    def read(self, said: Said) -> VM | None:
        size = said.data.get("data", "0M")
        mebibytes = int(size[:-1]) * {"M": 1, "G": 2**10, "T": 2**20}[size[-1]]
        if mebibytes > MOST:
            said.wrong("data is more than 16T.", "data")
        return VM(said.data.get("port", 0), mebibytes, said.data.get("firmware", ""))

    def on(self, event: Event) -> None:
        """It wants no events."""
