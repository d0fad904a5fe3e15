"""What was measured, as values: series of numbers by what was done and by whom."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

SHIPIT, HOOK = "shipit", "bash hook"
ALONE, AMONG = "alone", "among"


@dataclass
class Figures:
    """`series[what][who]`: every single number, in the order it was measured. `notes`: what a reader must know,
    `traces`: where the time of a command goes, as Markdown."""

    series: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, who: str, number: float) -> None:
        self.series.setdefault(what, {}).setdefault(who, []).append(number)

    def of(self, what: str, who: str) -> list[float]:
        return self.series.get(what, {}).get(who, [])


@dataclass(frozen=True)
class Row:
    """A line of a table. `ratio`: the second may take this much of the first; `limit`: or this much at most. `against`:
    what the first does instead, where it has nothing like it."""

    what: str
    title: str
    unit: str = "s"
    ratio: float | None = None
    limit: float | None = None
    against: str = ""

    def goal(self) -> str:
        if self.ratio is not None:
            return f"≤ {self.ratio:g} ×"
        if self.limit is not None:
            return f"≤ {show(self.limit, self.unit)}" if self.limit else "0"
        return "–"

    def met(self, theirs: Sequence[float], ours: Sequence[float]) -> bool | None:
        """None: no goal, or not measured. A limit holds for every single number, a ratio for the medians."""
        if self.ratio is not None and ours and theirs:
            return statistics.median(ours) <= self.ratio * statistics.median(theirs)
        if self.limit is not None and ours:
            worst = max(ours) if self.limit == 0 else statistics.median(ours)
            return worst <= self.limit
        return None


ROWS = (
    Row("first", "first push → 200", ratio=0.4),
    Row("first, empty caches", "first push → 200, no package downloaded before", ratio=0.4),
    Row("code", "code-only push → new code", ratio=0.9),
    Row("code, whole", "code-only push, until `git push` ends"),
    Row("dependency", "one dependency added → new code", ratio=1.0),
    Row("config", "config change → live", ratio=1.0),
    Row("rollback", "rollback → old code", ratio=0.5),
    Row("warm", "rollback → old code that was kept warm (`warm: 600`)", ratio=0.3, against="rollback"),
    Row("code, rested", "code-only push → new code, the first login in a while"),
    Row("config, rested", "config change → live, the first login in a while"),
    Row("rollback, rested", "rollback → old code, the first login in a while"),
    Row("lost, keep-alive", "requests lost per push, 8 connections kept alive", "", limit=0),
    Row("lost, close", "requests lost per push, 8 clients, a connection each", "", limit=0),
    Row("gap, keep-alive", "longest time without an answer during a push"),
    Row("missing", "changes after which the app did not answer for 30 s", "", limit=0),
    Row("cli", "a CLI command over ssh, above `ssh true`", "ms", limit=80),
    Row("ssh", "`ssh true` alone", "ms"),
    Row("memory", "resident memory when idle", "MiB", limit=0),
    Row("disk, one", "disk: one release with large dependencies, and caches", "MiB"),
    Row("disk, many", "disk: the same after five releases", "MiB"),
)
AMONG_OTHERS = (
    Row("code", "code-only push → new code", ratio=1.1),
    Row("config", "config change → live", ratio=1.1),
    Row("rollback", "rollback → old code", ratio=1.1),
)


def show(number: float, unit: str) -> str:
    if unit == "s":
        return f"{number:.2f} s"
    return f"{number:,.0f} {unit}".strip()


def spread(numbers: Sequence[float], unit: str) -> str:
    """Median, and in brackets the smallest and the largest."""
    if not numbers:
        return "–"
    middle = show(statistics.median(numbers), unit)
    if len(numbers) == 1 or min(numbers) == max(numbers):
        return middle
    low, high = (show(number, unit).removesuffix(unit).strip() for number in (min(numbers), max(numbers)))
    return f"{middle} ({low}–{high})"


def table(figures: Figures, rows: Sequence[Row] = ROWS, first: str = HOOK, second: str = SHIPIT) -> str:
    """A Markdown table of two that are compared; rows without a number are left out."""
    lines = [
        f"| | {first} | {second} | ratio | goal | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ours, theirs = figures.of(row.what, second), figures.of(row.against or row.what, first)
        if not ours and not theirs:
            continue
        below = statistics.median(theirs) if theirs else 0
        ratio = f"{statistics.median(ours) / below:.2f}" if ours and below else "–"
        met = {True: "yes", False: "**no**", None: ""}[row.met(theirs, ours)]
        cells = (row.title, spread(theirs, row.unit), spread(ours, row.unit), ratio, row.goal(), met)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
