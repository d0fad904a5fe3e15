"""The output of `systemctl show`, as values."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from receiver.engines.base import ProcessState, ProcessStatus
from receiver.engines.systemd import units

SHOWN = (
    "Id", "ActiveState", "MainPID", "NRestarts", "MemoryCurrent", "TasksCurrent", "CPUUsageNSec",
    "ExecMainStartTimestampMonotonic",
)  # fmt: skip


def pairs(block: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (line.partition("=") for line in block.splitlines())]


def status_of(shown: dict[str, str]) -> tuple[units.UnitName | None, ProcessStatus | None]:
    unit = units.parse_unit_name(shown.get("Id", ""))
    state = _state(shown.get("ActiveState", ""))
    if unit is None or state is None:
        return None, None
    since = counter(shown["ExecMainStartTimestampMonotonic"]) / 1e6
    return unit, ProcessStatus(
        release=unit.release,
        process=unit.process,
        index=unit.index,
        state=state,
        pid=counter(shown["MainPID"]),
        since=round(time.time() - time.monotonic() + since, 3) if since else 0.0,
        restarts=counter(shown["NRestarts"]),
        memory=counter(shown["MemoryCurrent"]),
        tasks=counter(shown["TasksCurrent"]),
        cpu=counter(shown["CPUUsageNSec"]) / 1e9,
    )


def as_kept(status: ProcessStatus, warm: Collection[int]) -> ProcessStatus:
    if status.release in warm and status.state is ProcessState.RUNNING:
        return replace(status, state=ProcessState.WARM)
    return status


def _state(active: str) -> ProcessState | None:
    if active in ("active", "reloading"):
        return ProcessState.RUNNING
    if active == "activating":
        return ProcessState.STARTING
    if active == "deactivating":
        return ProcessState.STOPPING
    if active == "failed":
        return ProcessState.FAILED
    # An inactive unit has ended normally, or was only looked up: it runs nothing any more.
    return None


def counter(text: str) -> int:
    """systemd writes `[not set]` or 2**64-1 for an unknown value."""
    number = int(text) if text.isdigit() else 0
    return 0 if number == 2**64 - 1 else number
