"""Limits of one process of a type that were set on the server. They override shipit.yml, and are kept over pushes and
rollbacks, as the counts of `ps:scale` are. Pure.

A limit is named `web.memory`; 0 means no limit of its own, only the app's, which all its processes share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from receiver.errors import Rejected
from receiver.model import Limits, ProcessType
from receiver.names import LIMITS, TypeName

_FORMS = {
    "memory": (re.compile(r"([1-9][0-9]{0,6})([MG])", re.ASCII), "512M or 2G"),
    "cpu": (re.compile(r"([1-9][0-9]{0,4})()%", re.ASCII), "50% or 200% (of one core)"),
    "tasks": (re.compile(r"([1-9][0-9]{0,6})()", re.ASCII), "64"),
}
UNITS = {"memory": "M", "cpu": "%", "tasks": ""}
NONE = "none"

# (`web.memory`, value), as AppState keeps them.
Set = tuple[tuple[str, int], ...]


def parse(what: str, text: str) -> int:
    """`512M` of memory, `150%` of cpu, `64` tasks, or `none`; raises Rejected."""
    if text == NONE:
        return 0
    form, example = _FORMS[what]
    match = form.fullmatch(text)
    if not match or int(match[1]) > 2**22:
        raise Rejected(f"{text[:40]!a} is no limit of {what}.", hint=f"--{what} {example}, or {NONE}")
    return int(match[1]) * (1024 if match[2] == "G" else 1)


def shown(what: str, value: int) -> str:
    return f"{value}{UNITS[what]}" if value else NONE


def limited(processes: Sequence[ProcessType], wishes: Set) -> tuple[ProcessType, ...]:
    """The process types with these limits in place of their own; other limits stay."""
    by_type: dict[str, dict[str, Any]] = {}
    for name, value in wishes:
        kind, _, what = name.partition(".")
        by_type.setdefault(kind, {})[what] = value
    return tuple(
        replace(process, limits=replace(process.limits, **by_type[process.type]))
        if process.type in by_type
        else process
        for process in processes
    )


def merged(before: Set, kinds: Sequence[TypeName], wish: Mapping[str, int]) -> Set:
    """All limits that are set after this change for these types."""
    return tuple(
        sorted({**dict(before), **{f"{kind}.{what}": value for kind in kinds for what, value in wish.items()}}.items())
    )


def of(limits: Limits) -> dict[str, int]:
    return {what: getattr(limits, what) for what in LIMITS}
