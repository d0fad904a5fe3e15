"""What is installed in node_modules by npm, yarn or pnpm: name and version from each package's own package.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from receiver.runtimes.base import Part, Slug

MOST = 2**20
DIRECTORIES = 100_000


def packages(slug: Slug, top: str = "node_modules") -> Iterator[Part]:
    """Every package below a node_modules, also those inside packages. Links are skipped: pnpm's lead into .pnpm."""
    todo, looked = [top], 0
    while todo and looked < DIRECTORIES:
        directory = todo.pop()
        for name in slug.names(directory):
            looked += 1
            place = f"{directory}/{name}"
            if name == ".pnpm":
                todo += [f"{place}/{one}/node_modules" for one in slug.names(place)]
            elif name.startswith("@"):
                for one in slug.names(place):
                    yield from _package(slug, f"{place}/{one}")
                    todo.append(f"{place}/{one}/node_modules")
            elif not name.startswith("."):
                yield from _package(slug, place)
                todo.append(f"{place}/node_modules")


def tool(slug: Slug, directory: str, prefix: str) -> Iterator[Part]:
    """A program that npm has brought for the app to run on."""
    for name in slug.names(directory):
        if name.startswith(prefix):
            for part in _package(slug, f"{directory}/{name}"):
                yield replace(part, version=part.version.removeprefix("v"), tool=True)


def _package(slug: Slug, place: str) -> Iterator[Part]:
    said = table(slug.read(f"{place}/package.json", MOST))
    name, version, license_ = (said.get(key) for key in ("name", "version", "license"))
    if isinstance(name, str) and isinstance(version, str) and name and version:
        yield Part("npm", name, version, license_ if isinstance(license_, str) else "")


def table(raw: bytes) -> dict[str, Any]:
    """A JSON object; {} for anything else."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
