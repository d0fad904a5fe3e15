"""Pipfile.lock → requirements (pipenv's lock format, pipfile-spec 6)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from receiver.errors import Rejected
from receiver.manifest.toml import table
from receiver.runtimes.python.lock import Locked

# Its older name is in lock files of before 2018.
_PYPI = ("https://pypi.org/simple", "https://pypi.python.org/simple")
_NOT_PACKAGES = frozenset({"source", "packages", "dev-packages", "requires", "scripts", "pipfile", "pipenv"})


def requirements(lock: Mapping[str, Any], pipfile: Mapping[str, Any] | None) -> Locked:
    """The `default` packages of a lock file; paths in the result are relative to the project.

    Raises Rejected if the lock file does not fit the Pipfile: it was made from another one, and lacks a package that this
    one wants. (A change for development alone, or of the Python version, changes nothing of what is installed.)
    """
    meta = table(lock, "_meta")
    if (
        pipfile is not None
        and table(meta, "hash").get("sha256") not in _hashes(pipfile)
        and not _still_has(lock, pipfile)
    ):
        raise Rejected(
            "The Pipfile changed since Pipfile.lock was made.", hint="pipenv lock; git commit Pipfile.lock; push again"
        )
    lines: list[str] = []
    # The server's own choice of a mirror stands in for PyPI itself.
    urls = [source["url"] for source in meta.get("sources", []) if source["url"].rstrip("/") not in _PYPI]
    lines += [f"--extra-index-url {url}" for url in urls]
    hashed = True
    for name, package in table(lock, "default").items():
        hashes = package.get("hashes", []) if "version" in package else []
        hashed = hashed and bool(hashes)
        lines.append(" ".join([_line(name, package), *(f"--hash={value}" for value in hashes)]))
    return Locked("\n".join(lines) + "\n", hashed)


def _still_has(lock: Mapping[str, Any], pipfile: Mapping[str, Any]) -> bool:
    """Whether the lock has every package that the Pipfile wants, in the very version where it names one."""
    locked = {_normal(name): package for name, package in table(lock, "default").items()}
    sources = [source.get("url") for source in pipfile.get("source", [])]
    if sources != [source.get("url") for source in table(lock, "_meta").get("sources", [])]:
        return False
    for name, wish in table(pipfile, "packages").items():
        version = locked.get(_normal(name), {}).get("version")
        if version is None or wish not in ("*", version):
            return False
    return True


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _line(name: str, package: Mapping[str, Any]) -> str:
    extras = f"[{','.join(package['extras'])}]" if package.get("extras") else ""
    tail = f" ; {package['markers']}" if package.get("markers") else ""
    if "git" in package:
        url = package["git"] if package["git"].startswith("git+") else f"git+{package['git']}"
        below = f"#subdirectory={package['subdirectory']}" if package.get("subdirectory") else ""
        return f"{name}{extras} @ {url}@{package['ref']}{below}{tail}"
    local = package.get("path") or package.get("file")
    if local:
        if "://" in local:
            return f"{name}{extras} @ {local}{tail}"
        return f"{'-e ' if package.get('editable') else ''}./{local.removeprefix('./')}{extras}{tail}"
    return f"{name}{extras}{package['version']}{tail}"


def _hashes(pipfile: Mapping[str, Any]) -> set[str]:
    """Pipenv's digest of a Pipfile (plette, pipfiles.py), as versions with and without named categories make it."""
    plain = {
        "_meta": {"sources": pipfile.get("source", []), "requires": pipfile.get("requires", {})},
        "default": pipfile.get("packages", {}),
        "develop": pipfile.get("dev-packages", {}),
    }
    named = {key: value for key, value in pipfile.items() if key not in _NOT_PACKAGES}
    return {_digest(plain), _digest({**named, **plain})}


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
