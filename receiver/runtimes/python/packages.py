"""A project's wanted packages, as a list of texts. Comparing two such lists shows which are no longer wanted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from receiver.errors import Rejected
from receiver.manifest import Tree, toml
from receiver.runtimes.python import wheelfile
from receiver.runtimes.python.project import Kind, lone_wheel

# The files that decide an environment without a lock file.
_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "uv.lock", "poetry.lock", "Pipfile.lock")


def packages(tree: Tree, kind: Kind, decides: Iterable[str]) -> tuple[str, ...]:
    """The packages of a lock file, with version and source; without one, the files that decide, with their content. For
    a wheel that is the app only its requirements count: its own code may change like a commit."""
    found: Any = None
    if kind is Kind.WHEEL and (asked := wheelfile.asks(tree, wheel := lone_wheel(tree))):
        return (*asked, *_files(tree, {*decides} - {wheel}))
    try:
        if kind in (Kind.UV, Kind.POETRY):
            found = toml.read(tree, kind.value).get("package")
        elif kind is Kind.PIPENV:
            lock = json.loads(tree.read(kind.value) or b"")
            found = [{"name": name, **package} for name, package in lock["default"].items()]
        return tuple(sorted({_text(package) for package in found or []})) or _files(tree, decides)
    except (Rejected, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # The build will report the mistake.
        return _files(tree, decides)


def _text(package: Mapping[str, Any]) -> str:
    return json.dumps([package["name"], package.get("version"), package.get("source")], sort_keys=True, default=str)


def _files(tree: Tree, decides: Iterable[str]) -> tuple[str, ...]:
    files = tree.files()
    return tuple(f"{path} {files[path]}" for path in sorted({*decides, *_FILES}) if path in files)
