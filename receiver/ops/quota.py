"""How much data an app may have, and how its use is described. Pure.

The limit is measured, not enforced: an app can write beyond it (docs/decisions/0032). story/storage.py measures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from receiver.errors import Rejected
from receiver.model import AppState
from receiver.names import AppName
from receiver.records import FORMAT, Format, Record, format_number, own, parsed, real, whole
from receiver.settings import Settings

WARNED = 80  # per cent of the quota
MIB = 2**20
NONE, DEFAULT = "none", "default"
_SIZE = re.compile(r"([1-9][0-9]{0,5})([MGT])", re.ASCII)
_UNITS = {"M": 1, "G": 1024, "T": 1024**2}


class Level(str, Enum):
    """How full it is."""

    WELL = "well"
    NEARLY = "nearly"
    OVER = "over"

    @property
    def rank(self) -> int:
        return [*Level].index(self)


@dataclass(frozen=True)
class Measured(Record):
    """The result of a measurement: `used` in bytes of the disk. `told`: the highest level that people were told of."""

    used: int = field(metadata=own(whole()))
    at: float = field(metadata=own(real))
    told: Level = field(default=Level.WELL, metadata=own(parsed(Level)))
    format: Format = field(default=FORMAT, metadata=own(format_number))


def parse(text: str) -> int | None:
    """`512M`, `5G` or `1T` as MiB; 0 for `none`, None for `default`, which is the server's. Raises Rejected."""
    if text in (NONE, DEFAULT):
        return 0 if text == NONE else None
    match = _SIZE.fullmatch(text)
    if not match or int(match[1]) * _UNITS[match[2]] > 2**30:
        raise Rejected(
            f"{text[:40]!a} is no size.",
            hint=f"512M, 5G or 1T; {NONE}: no limit; {DEFAULT}: as the server's settings say",
        )
    return int(match[1]) * _UNITS[match[2]]


def of(state: AppState, settings: Settings) -> int:
    """The MiB that an app's data may take; 0: no limit."""
    return settings.storage_quota if state.quota is None else state.quota


def level(used: int, quota: int) -> Level:
    """`used` is in bytes, `quota` in MiB."""
    if not quota or used * 100 < quota * MIB * WARNED:
        return Level.WELL
    return Level.NEARLY if used <= quota * MIB else Level.OVER


def percent(used: int, quota: int) -> int:
    return used * 100 // (quota * MIB)


def size(used: int) -> str:
    """Bytes in the largest unit that fits: `4.2G`."""
    for unit, one in (("T", 2**40), ("G", 2**30), ("M", 2**20)):
        if used >= one:
            return f"{used / one:.1f}".removesuffix(".0") + unit
    return f"{-(-used // 1024)}K"


def against(used: int, quota: int) -> str:
    """`4.2G of 5G (84 %)`"""
    return f"{size(used)} of {size(quota * MIB)} ({percent(used, quota)} %)"


def sentence(app: AppName, used: int, quota: int) -> str:
    beyond = ": more than it may" if level(used, quota) is Level.OVER else ""
    return f"the data of {app} takes {against(used, quota)}{beyond}"


def hint(app: AppName) -> str:
    """What to type if there is little room left."""
    return (
        f"See what is large: shipit run {app} 'du -xh \"$DATA_DIR\" | sort -h | tail'\n"
        f"Or an admin allows it more: shipit storage:quota {app} 10G"
    )
