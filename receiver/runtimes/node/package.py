"""What package.json and the files beside it say: scripts, the package manager, the wanted Node.js."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from receiver.manifest import Pushed, Tree
from receiver.manifest.problems import decode, reject
from receiver.runtimes.node import versions

NAME = "package.json"
LOCKS = {"package-lock.json": "npm", "npm-shrinkwrap.json": "npm", "pnpm-lock.yaml": "pnpm", "yarn.lock": "yarn"}
# The lock files of a package manager that is not supported, and its name.
OTHERS = {"bun.lock": "bun", "bun.lockb": "bun"}
# Files that influence an install, beside the lock file.
DECIDES = (".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmfile.cjs", "pnpm-workspace.yaml", "patches/", ".yarn/patches/",
           ".yarn/plugins/", ".yarn/releases/")  # fmt: skip
FIELDS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "overrides", "resolutions",
          "pnpm", "packageManager", "bundleDependencies")  # fmt: skip
_MANAGER = re.compile(r"(npm|pnpm|yarn)@([0-9]+(?:\.[0-9]+){0,2}(?:-[\w.]+)?)(?:\+[\w.]+)?", re.ASCII)
_LOCAL = ("file:", "link:", "portal:", "workspace:", ".", "/")
# Scripts that npm runs when it installs; git hooks, which some of them set up, do not matter on a server.
LIFECYCLE = ("preinstall", "install", "postinstall", "prepare")
_GIT_HOOKS = re.compile(r"\b(?:husky|lefthook|simple-git-hooks|is-ci)\b")


@dataclass(frozen=True)
class Manager:
    """A package manager: `spec` is the name by which npm installs it, "" for npm itself; `lock` is its lock file."""

    name: str
    lock: str = ""
    spec: str = ""

    @property
    def modern_yarn(self) -> bool:
        return self.spec.startswith("@yarnpkg/")


def read(tree: Tree) -> dict[str, Any] | None:
    """The package.json at the top, None if there is none; raises Rejected if it is not valid."""
    raw = tree.read(NAME)
    if raw is None:
        return None
    try:
        data = json.loads(decode(NAME, raw, 2**20))
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise reject(f"{NAME}{line}", "This is not JSON.") from error
    if not isinstance(data, dict):
        raise reject(NAME, "It must be an object.")
    return data


def table(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object in package.json; {} if it is missing or no object."""
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def script(data: Mapping[str, Any], name: str) -> str:
    """A script of package.json, "" if it has none."""
    value = table(data, "scripts").get(name)
    return value.strip() if isinstance(value, str) else ""


def manager(tree: Tree, data: Mapping[str, Any]) -> Manager:
    """The package manager; raises Rejected if two lock files could decide, or if one is of a kind unknown here."""
    files = tree.files()
    said = data.get("packageManager")
    match = _MANAGER.fullmatch(said) if isinstance(said, str) else None
    locks = [lock for lock, name in LOCKS.items() if lock in files and (not match or name == match[1])]
    if len({LOCKS[lock] for lock in locks}) > 1:
        # A forgotten lock file lacks packages that were added later.
        locks = [lock for lock in locks if _knows(lock, tree.read(lock) or b"", data)] or locks
    other = next((lock for lock in OTHERS if lock in files), "")
    if other and not locks:
        raise reject(other, f"{OTHERS[other]} is not served here.",
                     "Commit a lock of npm instead:  npm install --package-lock-only; git add package-lock.json")  # fmt: skip
    lock = locks[0] if locks else ""
    name = LOCKS[lock] if lock else match[1] if match else "npm"
    if name == "npm":
        return Manager(name, lock)
    version = match[2] if match else _by_lock(lock, tree.read(lock) or b"")
    package = name if name == "pnpm" or version.startswith("1") else "@yarnpkg/cli-dist"
    return Manager(name, lock, f"{package}@{version}")


def leftover(tree: Tree, chosen: Manager) -> list[str]:
    """The lock files that are not used, beside the one that is."""
    return [lock for lock, name in LOCKS.items() if lock in tree.files() and chosen.lock and name != chosen.name]


def _knows(lock: str, raw: bytes, data: Mapping[str, Any]) -> bool:
    """Whether a lock has all that package.json asks for; True if it is too large to be read."""
    if not raw:
        return True
    text = raw.decode(errors="replace")
    wanted = {**table(data, "dependencies"), **table(data, "devDependencies")}
    if LOCKS[lock] == "yarn":
        return all(f"{name}@" in text for name in wanted)
    if LOCKS[lock] == "pnpm":
        return all(re.search(rf"^[ \t]+['\"]?{re.escape(name)}['\"]?:", text, re.MULTILINE) for name in wanted)
    try:
        top = json.loads(text)["packages"][""]
        known = {**top.get("dependencies", {}), **top.get("devDependencies", {})}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return all(f'"{name}"' in text for name in wanted)
    return all(known.get(name) == spec for name, spec in wanted.items())


def _by_lock(lock: str, raw: bytes) -> str:
    """The version of the package manager that writes such a lock."""
    text = raw[:4096].decode(errors="replace")
    if lock == "pnpm-lock.yaml":
        found = re.search(r"^lockfileVersion: '?([0-9]+)", text, re.MULTILINE)
        return {"5": "7", "6": "8"}.get(found[1] if found else "", "9")
    found = re.search(r"^__metadata:\s+version: ([0-9]+)", text, re.MULTILINE)
    if not found:
        return "1"
    return "4" if int(found[1]) >= 7 else "3"


def wanted(pushed: Pushed, data: Mapping[str, Any], wished: str) -> tuple[str, str]:
    """The wanted range of versions, and its place: shipit.yml, .nvmrc, .node-version or engines; "" = any version."""
    if wished:
        return wished, "shipit.yml"
    for name in (".nvmrc", ".node-version"):
        raw = pushed.tree.read(name)
        lines = decode(name, raw, 4096).splitlines() if raw else []
        said = next((line for line in (line.split("#")[0].strip() for line in lines) if line), "")
        if said:
            return versions.of_file(said), name
    engine = table(data, "engines").get("node")
    return (engine.strip(), NAME) if isinstance(engine, str) and engine.strip() else ("", "")


def is_closed(tree: Tree, data: Mapping[str, Any]) -> bool:
    """Whether lock, package.json and the files of DECIDES are all that decides what is installed."""
    if data.get("workspaces"):
        return False
    if b"packages:" in (tree.read("pnpm-workspace.yaml") or b""):
        return False
    if any(text and not _GIT_HOOKS.search(text) for text in (script(data, name) for name in LIFECYCLE)):
        return False
    specs = [spec for field in FIELDS[:4] for spec in table(data, field).values() if isinstance(spec, str)]
    return not any(spec.startswith(_LOCAL) for spec in specs)
