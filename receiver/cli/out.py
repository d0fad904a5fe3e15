"""How the CLI prints: tables that fit the terminal, JSON on request, colour only on a terminal, ages in words."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from receiver.here import typed

COLOURS = "SHIPIT_COLOURS"  # the client's terminal shows colours
_COLOURS = {"live": "32", "running": "32", "failed": "31", "building": "33", "starting": "33", "ok": "32"}


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def show_json(value: Any) -> None:
    """Indented JSON on standard output; what `--format json` prints everywhere."""
    say(json.dumps(value, indent=2, sort_keys=False, default=str))


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """Print rows (dicts) under the headings `columns` (field → heading); the last column is cut to fit the terminal."""
    if not rows:
        say(typed(empty))
        return
    cells = [[str(row.get(field, "")) for field in columns] for row in rows]
    lines = [list(columns.values()), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    room = terminal_width() or 10_000
    last = max(8, room - sum(widths[:-1]) - 2 * (len(widths) - 1))
    for number, line in enumerate(lines):
        if len(line[-1]) > last:
            line[-1] = line[-1][: last - 1] + "…"
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if number and colours():
            padded = [
                f"\x1b[{_COLOURS[c]}m{p}\x1b[0m" if c in _COLOURS else p for c, p in zip(line, padded, strict=True)
            ]
        elif colours():
            padded = [f"\x1b[1m{p}\x1b[0m" for p in padded]
        say("  ".join(padded).rstrip())


def for_terminal(columns: int, colours: bool) -> None:
    """Print for the client's terminal at the other end of ssh, which this process cannot see (0 columns: none)."""
    if columns:
        os.environ["COLUMNS"] = str(columns)  # click's help fits it, too
    if colours:
        os.environ[COLOURS] = "1"


def terminal_width() -> int:
    """Columns of the terminal, 100 if it does not say; 0 if there is no terminal."""
    if (told := os.environ.get("COLUMNS", "")).isdigit():
        return int(told)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 100
    except OSError:
        return 0


def fields(values: Mapping[str, Any]) -> None:
    """Print one thing as `name: value` lines."""
    width = max(len(name) for name in values) + 1
    for name, value in values.items():
        say(f"{(name + ':').ljust(width)} {value}".rstrip())


def colours() -> bool:
    """Whether to print colours: on a terminal, without NO_COLOR (https://no-color.org)."""
    return (sys.stdout.isatty() or COLOURS in os.environ) and "NO_COLOR" not in os.environ


def age(then: float) -> str:
    """How long ago an epoch time was, in the largest unit that says it: `3 min ago`."""
    seconds = max(0.0, time.time() - then)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def when(then: float) -> str:
    """An epoch time as local date and time; empty for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then)) if then else ""
