"""Which of Python's own files say what a project needs, and which Python it wants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from receiver.manifest import toml
from receiver.manifest.problems import decode, reject, shown
from receiver.manifest.tree import Tree
from receiver.runtimes.python import requirements


class Kind(str, Enum):
    """How a project says what it needs, the first that is there wins."""

    UV = "uv.lock"
    POETRY = "poetry.lock"
    PIPENV = "Pipfile.lock"
    REQUIREMENTS = "requirements.txt"
    PYPROJECT = "pyproject.toml"
    SETUP = "setup.py"
    NOTHING = ""


LOCKS = (Kind.UV, Kind.POETRY, Kind.PIPENV)
_VERSION = re.compile(r"(?:(?:cpython|python)[-@]?)?(3(?:\.[0-9]{1,2}){0,2})t?|pypy[-@]?(3\.[0-9]{1,2})", re.ASCII)
_NAMES = re.compile(r'^name = "([A-Za-z0-9._-]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Python:
    """A wanted Python version (or specifier) and the file that says so; both empty when nothing does."""

    version: str = ""
    where: str = ""


def kind(tree: Tree) -> Kind:
    """What the environment is made from; raises Rejected when two lock files could decide or a lock is missing."""
    files = tree.files()
    locks = [lock for lock in LOCKS if lock.value in files]
    if len(locks) > 1:
        both = " and ".join(lock.value for lock in locks)
        raise reject(locks[1].value, f"The commit holds {both}, and nothing says which one counts.",
                     f"Keep one, for example:  git rm {locks[1].value}")  # fmt: skip
    if locks:
        return locks[0]
    if "Pipfile" in files and Kind.REQUIREMENTS.value not in files:
        raise reject("Pipfile", "There is a Pipfile but no Pipfile.lock.", "pipenv lock; git add Pipfile.lock")
    for plain in (Kind.REQUIREMENTS, Kind.PYPROJECT, Kind.SETUP):
        if plain.value in files:
            return plain
    return Kind.SETUP if "setup.cfg" in files else Kind.NOTHING


def shows(tree: Tree, kind: Kind) -> str:
    """The file that shows a project to be of this kind."""
    return kind.value if kind.value in tree.files() else "setup.cfg"


def packages(tree: Tree) -> set[str]:
    """Normalised names of the packages that the environment is known to get; `name[extra]` for wanted extras."""
    source = kind(tree)
    if source is Kind.REQUIREMENTS:
        return requirements.read(tree, source.value).names
    raw = tree.read(source.value) if source is not Kind.NOTHING else None
    if raw is None:
        return set()
    if source in (Kind.UV, Kind.POETRY):
        return {requirements.normal(name) for name in _NAMES.findall(raw.decode(errors="replace"))}
    if source is Kind.PIPENV:
        return {
            requirements.normal(name)
            for name in re.findall(r'^        "([\w.-]+)": \{', raw.decode(errors="replace"), re.M)
        }
    if source is Kind.PYPROJECT:
        wanted = toml.table(toml.parse(source.value, raw), "project").get("dependencies", [])
        return requirements.names_of(item for item in wanted if isinstance(item, str))
    return set()


def python_version(tree: Tree, wished: str) -> Python:
    """The Python a project wants: shipit.yml's `wished`, .python-version, runtime.txt, Pipfile.lock, requires-python.

    Raises Rejected for a version shipit cannot read, and when .python-version and runtime.txt differ.
    """
    if wished:
        return Python(wished, "shipit.yml")
    said = [found for name in (".python-version", "runtime.txt") if (found := _from_file(tree, name)).version]
    if len(said) == 2 and said[0].version != said[1].version:
        raise reject(said[1].where, f"It wants Python {said[1].version}, {said[0].where} wants {said[0].version}.",
                     "Keep one of the two files.")  # fmt: skip
    if said:
        return said[0]
    if "pyproject.toml" in tree.files():
        return _required(tree)
    return Python()


def _from_file(tree: Tree, name: str) -> Python:
    raw = tree.read(name)
    if raw is None:
        return Python()
    for number, line in enumerate(decode(name, raw, 4096).splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = _VERSION.fullmatch(text)
        if not match:
            raise reject(f"{name}:{number}", f"{shown(text)} is not a Python version.", f"Write one into {name}:  3.12")
        return Python(match[1] or f"pypy{match[2]}", f"{name}:{number}")
    return Python()


def _required(tree: Tree) -> Python:
    data = toml.read(tree, "pyproject.toml")
    required = toml.table(data, "project").get("requires-python")
    if isinstance(required, str) and required.strip():
        return Python(required.strip(), "pyproject.toml")
    caret = toml.table(data, "tool", "poetry", "dependencies").get("python")
    return Python(_caret(caret), "pyproject.toml") if isinstance(caret, str) and _caret(caret) else Python()


def _caret(text: str) -> str:
    """Poetry's `^3.10` and `~3.10` as a PEP 440 specifier; other forms are PEP 440 already, bar `||`."""
    match = re.fullmatch(r"([\^~])\s*(3(?:\.[0-9]+){0,2})", text.strip())
    if match and match[1] == "^":
        return f">={match[2]},<4"
    if match:
        parts: Sequence[str] = match[2].split(".")
        return f">={match[2]},<3.{int(parts[1]) + 1}" if len(parts) > 1 else f">={match[2]},<4"
    return text.strip() if re.fullmatch(r"[<>=!~0-9.,*\s]+", text) and text.strip() != "*" else ""
