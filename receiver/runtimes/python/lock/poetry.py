"""poetry.lock → requirements, for lock files of Poetry 2 (lock-version 2.1), which say when each package is needed.

Older lock files leave that to Poetry's resolver, so Poetry itself exports those (runtimes/python/plan.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from receiver.errors import Rejected
from receiver.manifest.toml import table
from receiver.runtimes.python.lock import Locked

_PROJECT = ("requires-python", "dependencies", "optional-dependencies")
_LEGACY = ("dependencies", "source", "extras", "dev-dependencies")


def direct(lock_version: str) -> bool:
    """Whether a lock file of this version can be read without Poetry."""
    match = re.fullmatch(r"2\.([0-9]+)", lock_version)
    return match is not None and int(match[1]) >= 1


def requirements(lock: Mapping[str, Any], pyproject: Mapping[str, Any], environment: Mapping[str, str]) -> Locked:
    """The main group of a lock file.

    `environment` may hold POETRY_HTTP_BASIC_NAME_USERNAME and _PASSWORD for private sources, as for Poetry. Paths in
    the result are relative to the project. Raises Rejected if the lock file does not fit the pyproject.toml.
    """
    if is_stale(lock, pyproject):
        raise Rejected(
            "pyproject.toml changed since poetry.lock was made.", hint="poetry lock; git commit poetry.lock; push again"
        )
    lines: list[str] = []
    hashed = True
    names = {
        source["url"].rstrip("/"): str(source.get("name", ""))
        for source in table(pyproject, "tool", "poetry").get("source", [])
        if "url" in source
    }
    for index in sorted({p["source"]["url"] for p in lock.get("package", []) if _kind(p) == "legacy"}):
        lines.append(f"--extra-index-url {_with_login(index, names.get(index.rstrip('/'), ''), environment)}")
    for package in lock.get("package", []):
        if package.get("optional") or "main" not in package.get("groups", ["main"]):
            continue
        hashes = [file["hash"] for file in package.get("files", [])] if _kind(package) in ("", "legacy", "url") else []
        hashed = hashed and bool(hashes)
        lines.append(" ".join([_line(package), *(f"--hash={value}" for value in hashes)]))
    return Locked("\n".join(lines) + "\n", hashed)


def is_stale(lock: Mapping[str, Any], pyproject: Mapping[str, Any]) -> bool:
    """Whether the lock's content-hash differs from each that a Poetry 2 computes for this pyproject.toml."""
    wanted = table(lock, "metadata").get("content-hash")
    return wanted not in {content_hash(pyproject, groups=groups) for groups in (True, False)}


def content_hash(pyproject: Mapping[str, Any], *, groups: bool) -> str:
    """Poetry's digest of what decides a lock (poetry/packages/locker.py); `groups`: with PEP 735's, as since 2.3."""
    project = {k: v for k in _PROJECT if (v := table(pyproject, "project").get(k)) is not None}
    named = table(pyproject, "dependency-groups") if groups else {}
    said = table(pyproject, "tool", "poetry")
    poetry = {
        key: said.get(key)
        for key in (*_LEGACY, "group")
        if said.get(key) is not None or (key in _LEGACY and not project and not named)
    }
    content: dict[str, Any] = poetry
    if project or named:
        content = {**({"project": project} if project else {}), "tool": {"poetry": poetry}}
        if named:
            content["dependency-groups"] = named
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _kind(package: Mapping[str, Any]) -> str:
    return str(table(package, "source").get("type", ""))


def _line(package: Mapping[str, Any]) -> str:
    kind, source, name = _kind(package), table(package, "source"), package["name"]
    markers = package.get("markers", "")
    if isinstance(markers, dict):
        markers = markers.get("main", "")
    tail = f" ; {markers}" if markers else ""
    if kind == "git":
        below = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
        return f"{name} @ git+{source['url']}@{source['resolved_reference']}{below}{tail}"
    if kind == "url":
        return f"{name} @ {source['url']}{tail}"
    if kind in ("directory", "file"):
        editable = "-e " if package.get("develop") else ""
        return f"{editable}./{source['url']}{tail}"
    return f"{name}=={package['version']}{tail}"


def _with_login(url: str, name: str, environment: Mapping[str, str]) -> str:
    key = f"POETRY_HTTP_BASIC_{re.sub(r'[-.]', '_', name).upper()}"
    user, password = environment.get(f"{key}_USERNAME"), environment.get(f"{key}_PASSWORD", "")
    if not name or user is None:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"))
