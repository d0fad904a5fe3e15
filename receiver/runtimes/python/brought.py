"""Packages that the build adds, within one major version: servers that a command starts and the requirements lack, and
what an old server needs.

If a project requires one of these itself, its own version is used.
"""

from __future__ import annotations

import re

from receiver.manifest import Manifest, Tree
from receiver.runtimes.python import command, requirements
from receiver.runtimes.python.project import Kind, kind, packages, source

_OLDER = re.compile(rb"^[ \t]*gunicorn[ \t]*==[ \t]*(?:19|20)\.", re.MULTILINE | re.IGNORECASE)
VERSIONS = {"gunicorn": "gunicorn>=23,<26", "uvicorn": "uvicorn[standard]>=0.30,<1"}


def servers(tree: Tree, commands: list[str]) -> list[str]:
    """The names of the servers that are started and not known to be required, in order."""
    if kind(tree) in (Kind.NOTHING, Kind.WHEEL):
        return []
    needed = packages(tree)
    if needed & {"fastapi[standard]", "fastapi[all]"}:
        needed = needed | {"uvicorn"}
    found = (command.server(text) for text in commands)
    return sorted({server.name for server in found if server and server.name not in needed})


def specs(tree: Tree, manifest: Manifest) -> list[str]:
    """The requirements that the build adds to the environment."""
    lines = [process.command for process in manifest.processes]
    return [*(VERSIONS[name] for name in servers(tree, lines)), *_with_older_gunicorn(tree)]


def _with_older_gunicorn(tree: Tree) -> list[str]:
    """What gunicorn before 21 needs: an older setuptools, since later ones lack a module that it imports."""
    if kind(tree) is not Kind.REQUIREMENTS or "setuptools" in packages(tree):
        return []
    files = requirements.read(tree, source(tree, Kind.REQUIREMENTS)).files
    return ["setuptools<81"] if any(_OLDER.search(tree.read(path) or b"") for path in files) else []
