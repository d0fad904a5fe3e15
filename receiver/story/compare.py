"""What two releases differ in: their origins, files, dependencies, config vars (names only), processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from receiver.errors import NotFound
from receiver.ledger.ledger import Ledger
from receiver.model import Origin, Release
from receiver.root.client import Agent
from receiver.sources.all import source_of
from receiver.story import bill

K = TypeVar("K")
V = TypeVar("V")
LINK, MODULE = "120000", "160000"


@dataclass(frozen=True)
class Changes:
    """Changes of one kind of thing, by name: `added` and `removed` values, and `changed` (old, new) pairs."""

    added: Mapping[str, Any] = field(default_factory=dict)
    removed: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def encode(self) -> dict[str, Any]:
        changed = {name: {"from": was, "to": now} for name, (was, now) in self.changed.items()}
        return {"added": dict(self.added), "removed": dict(self.removed), "changed": changed}


@dataclass(frozen=True)
class Difference:
    """A part is None if it is not known any more; `why` says the reason for each of these."""

    origin: tuple[dict[str, str] | None, dict[str, str] | None]
    files: Changes | None
    dependencies: Changes | None
    config: Changes | None
    processes: Changes
    formation: Changes
    why: Mapping[str, str]

    def encode(self) -> dict[str, Any]:
        parts = ("files", "dependencies", "config", "processes", "formation")
        shown = {name: part.encode() if (part := getattr(self, name)) is not None else None for name in parts}
        return {"origin": {"from": self.origin[0], "to": self.origin[1]}, **shown, "not_known": dict(self.why)}


def between(was: Mapping[str, V], now: Mapping[str, V]) -> Changes:
    """The changes from one set of named values to another, in the order of the names."""
    return Changes(
        {name: now[name] for name in sorted(now.keys() - was.keys())},
        {name: was[name] for name in sorted(was.keys() - now.keys())},
        {name: (was[name], now[name]) for name in sorted(was.keys() & now.keys()) if was[name] != now[name]},
    )


def compare(ledger: Ledger, agent: Agent, old: Release, new: Release) -> Difference:
    """The difference from `old` to `new`."""
    why: dict[str, str] = {}
    return Difference(
        (described(old.origin), described(new.origin)),
        files(ledger, old, new, why),
        installed(ledger, agent, old, new, why),
        config(agent, old, new, why),
        between(commands(old), commands(new)),
        between(dict(old.formation), dict(new.formation)),
        why,
    )


def described(origin: Origin | None) -> dict[str, str] | None:
    if origin is None:
        return None
    return {"kind": origin.kind, "id": origin.id, "title": origin.title, "author": origin.author, "ref": origin.ref}


def commands(release: Release) -> dict[str, str]:
    return {process.type: process.command for process in release.processes}


def files(ledger: Ledger, old: Release, new: Release, why: dict[str, str]) -> Changes | None:
    """The sizes in bytes of the files that differ; a change of the mode alone counts, too."""
    if old.origin == new.origin:
        return Changes()
    found: list[Mapping[str, Any]] = []
    for release in (old, new):
        origin = release.origin
        if origin is None:
            found.append({})
            continue
        source = source_of(ledger.paths, origin)
        if not source.has(origin):
            why["files"] = f"The files of {release.name} are not kept any more."
            return None
        found.append(source.listed(origin))
    was, now = found
    same = {path for path in was.keys() & now.keys() if was[path] == now[path]}
    sizes = [{path: entry.size for path, entry in tree.items() if path not in same} for tree in found]
    changes = between(*sizes)
    # Files of the same size with other contents: `between` sees no change in these.
    equal = {path: (sizes[0][path], size) for path, size in sizes[1].items() if sizes[0].get(path) == size}
    return Changes(changes.added, changes.removed, dict(sorted({**changes.changed, **equal}.items())))


def installed(ledger: Ledger, agent: Agent, old: Release, new: Release, why: dict[str, str]) -> Changes | None:
    """The changed versions of what was installed, by kind and name."""
    if old.slug == new.slug:
        return Changes()
    found = []
    for release in (old, new):
        parts = bill.dependencies(ledger, agent, release)
        if isinstance(parts, str):
            why["dependencies"] = parts
            return None
        found.append(parts)
    return between(*found)


def config(agent: Agent, old: Release, new: Release, why: dict[str, str]) -> Changes | None:
    """The names of the config vars that differ. No value leaves this function."""
    values: list[Mapping[str, str]] = []
    for release in (old, new):
        try:
            values.append({str(key): value for key, value in agent.read_config(release.app, release.number).items()})
        except NotFound:
            why["config"] = f"The config vars of {release.name} are not kept any more."
            return None
    changes = between(*values)
    hidden = dict.fromkeys
    return Changes(hidden(changes.added), hidden(changes.removed), hidden(changes.changed, (None, None)))


def lines(difference: Difference) -> Iterable[tuple[str, str, str]]:
    """(part, sign, text) for each change, for people to read."""
    was, now = difference.origin
    if was != now:
        yield "origin", "~", f"{_origin(was)} → {_origin(now)}"
    for part, changes, form in (
        ("process", difference.processes, "{name}: {value}"), ("formation", difference.formation, "{name}={value}"),
        ("config", difference.config, "{name}"), ("dependency", difference.dependencies, "{name} {value}"),
        ("file", difference.files, "{name}  {value:,}"),
    ):  # fmt: skip
        if changes is None:
            continue
        changed = {
            name: (form.format(name=name, value=pair[0]), form.format(name="", value=pair[1]).lstrip(" :="))
            for name, pair in changes.changed.items()
        }
        rows = [(name, "+", form.format(name=name, value=value)) for name, value in changes.added.items()]
        rows += [(name, "-", form.format(name=name, value=value)) for name, value in changes.removed.items()]
        rows += [(name, "~", first + (f" → {then}" if then else "")) for name, (first, then) in changed.items()]
        for _, sign, what in sorted(rows):
            yield part, sign, what


def _origin(origin: dict[str, str] | None) -> str:
    if origin is None:
        return "nothing"
    return " ".join(filter(None, [origin["kind"], origin["id"][:8], origin["ref"], origin["title"]]))
