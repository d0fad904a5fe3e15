"""Which of Python's files list a project's requirements, and which Python it wants."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from receiver.errors import Rejected
from receiver.manifest import toml
from receiver.manifest.problems import decode, reject, shown
from receiver.manifest.tree import Tree
from receiver.runtimes import packed
from receiver.runtimes.python import requirements, wheelfile


class Kind(str, Enum):
    """The kinds of file with a project's requirements; the first that exists is used."""

    UV = "uv.lock"
    POETRY = "poetry.lock"
    PIPENV = "Pipfile.lock"
    REQUIREMENTS = "requirements.txt"
    PYPROJECT = "pyproject.toml"
    SETUP = "setup.py"
    WHEEL = "*.whl"
    NOTHING = ""


LOCKS = (Kind.UV, Kind.POETRY, Kind.PIPENV)
# Used if there is no requirements.txt: of a directory with several files, the one for a server.
INSTEAD = tuple(f"requirements/{name}.txt" for name in ("production", "prod", "deploy", "main", "base", "requirements"))
# Optional groups of pyproject.toml that are meant for a server.
GROUPS = ("production", "prod")
_VERSION = re.compile(r"(?:(?:cpython|python)[-@]?)?(3(?:\.[0-9]{1,2}){0,2})t?|pypy[-@]?(3\.[0-9]{1,2})", re.ASCII)
_PACKAGE = re.compile(rb"^\[(?:metadata|options)\]", re.MULTILINE)
_NAMES = re.compile(r'^name = "([A-Za-z0-9._-]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Python:
    """A wanted Python version (or specifier) and the file that names it; both are empty if none does."""

    version: str = ""
    where: str = ""


def kind(tree: Tree) -> Kind:
    """The kind of file that the environment is made from; raises Rejected if two lock files could decide, or a lock is
    missing."""
    files = tree.files()
    locks = [lock for lock in LOCKS if lock.value in files]
    if len(locks) > 1:
        both = " and ".join(lock.value for lock in locks)
        raise reject(locks[1].value, f"The commit holds {both}, and nothing says which one counts.",
                     f"Keep one, for example:  git rm {locks[1].value}")  # fmt: skip
    if locks:
        return locks[0]
    if lone_wheel(tree):
        return Kind.WHEEL
    if "Pipfile" in files and Kind.REQUIREMENTS.value not in files:
        raise reject("Pipfile", "There is a Pipfile but no Pipfile.lock.", "pipenv lock; git add Pipfile.lock")
    instead = source(tree, Kind.REQUIREMENTS)
    for plain in (Kind.REQUIREMENTS, Kind.PYPROJECT, Kind.SETUP):
        if plain is Kind.PYPROJECT and {instead, Kind.SETUP.value} & set(files) and _is_of_tools(tree):
            continue
        if plain.value in files:
            return plain
    if "setup.cfg" in files and not (instead in files and not _PACKAGE.search(tree.read("setup.cfg") or b"")):
        return Kind.SETUP
    return Kind.REQUIREMENTS if instead in files else Kind.NOTHING


def _is_of_tools(tree: Tree) -> bool:
    """Whether a pyproject.toml only has settings of tools such as linters: then it does not say what to install."""
    try:
        data = toml.read(tree, "pyproject.toml")
    except Rejected:
        return False
    return not {"project", "build-system"} & set(data) and "poetry" not in toml.table(data, "tool")


def lone_wheel(tree: Tree) -> str:
    """The wheel that is the app: at the top, without sources beside it; "" if there is none, or a requirements.txt
    names wheels itself. Raises Rejected if there are several."""
    wheels = packed.at_top(tree, ".whl")
    files = tree.files()
    if not wheels or any(name in files for name in ("pyproject.toml", "setup.py", "setup.cfg", "Pipfile")):
        return ""
    if any(path.endswith(".py") and "/" not in path for path in files):
        return ""
    if "requirements.txt" in files and set(requirements.read(tree, "requirements.txt").files) & set(wheels):
        return ""
    if len(wheels) > 1:
        raise reject(wheels[1], f"There are several wheels at the top: {', '.join(wheels[:4])}.",
                     "The app's own is one; put those that it needs into wheels/")  # fmt: skip
    return wheels[0]


def source(tree: Tree, kind: Kind) -> str:
    """The file that a project of this kind is made from."""
    files = tree.files()
    if kind is Kind.WHEEL:
        return lone_wheel(tree)
    if kind is Kind.REQUIREMENTS:
        return next((path for path in ("requirements.txt", *INSTEAD) if path in files), "requirements.txt")
    name: str = kind.value
    return "setup.cfg" if kind is Kind.SETUP and name not in files else name


def group(data: Mapping[str, Any]) -> tuple[str, str]:
    """uv's option for a group of pyproject.toml that is meant for servers, and its name; "" and "" if there is none."""
    for option, table in (("--extra", toml.table(data, "project", "optional-dependencies")),
                          ("--group", toml.table(data, "dependency-groups"))):  # fmt: skip
        for name in GROUPS:
            if name in table:
                return option, name
    return "", ""


def how_to_add(tree: Tree, package: str) -> str:
    """What to type, or to write, to add a package to the requirements."""
    typed = {
        Kind.UV: f"uv add {package}",
        Kind.POETRY: f"poetry add {package}",
        Kind.PIPENV: f"pipenv install {package}",
    }
    found = kind(tree)
    if found in typed:
        return f"Add it:  {typed[found]}"
    return f"Add {package} to {source(tree, found) or 'requirements.txt'}"


def packages(tree: Tree) -> set[str]:
    """Normalised names of the packages that will be installed, as far as known; `name[extra]` for wanted extras."""
    found = kind(tree)
    if found is Kind.REQUIREMENTS:
        return requirements.read(tree, source(tree, found)).names
    if found is Kind.WHEEL:
        more = requirements.read(tree, "requirements.txt").names if "requirements.txt" in tree.files() else set()
        return wheelfile.needs(tree, source(tree, found)) | more
    raw = tree.read(found.value) if found is not Kind.NOTHING else None
    if raw is None:
        return set()
    if found in (Kind.UV, Kind.POETRY):
        return {requirements.normal(name) for name in _NAMES.findall(raw.decode(errors="replace"))}
    if found is Kind.PIPENV:
        return {
            requirements.normal(name)
            for name in re.findall(r'^        "([\w.-]+)": \{', raw.decode(errors="replace"), re.M)
        }
    if found is Kind.PYPROJECT:
        data = toml.parse(found.value, raw)
        option, name = group(data)
        optional = toml.table(data, "project", "optional-dependencies") if option == "--extra" else {}
        wanted = [*_list(toml.table(data, "project").get("dependencies")), *_list(optional.get(name))]
        wanted += [name for name in toml.table(data, "tool", "poetry", "dependencies") if name != "python"]
        return requirements.names_of(item for item in wanted if isinstance(item, str))
    return set()


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def python_version(tree: Tree, wished: str) -> Python:
    """The Python a project wants: shipit.yml's `wished`, .python-version, runtime.txt, Pipfile.lock, requires-python.

    Raises Rejected for a version that shipit cannot read, and if .python-version and runtime.txt differ.
    """
    if wished:
        return Python(wished, "shipit.yml")
    said = [found for name in (".python-version", "runtime.txt") if (found := _from_file(tree, name)).version]
    if len(said) == 2 and (closer := _closer(said[0], said[1])):
        return closer
    if len(said) == 2:
        raise reject(said[1].where, f"It wants Python {said[1].version}, {said[0].where} wants {said[0].version}.",
                     "Keep one of the two files.")  # fmt: skip
    if said:
        return said[0]
    if "pyproject.toml" in tree.files():
        return _required(tree)
    return Python()


def _closer(one: Python, other: Python) -> Python | None:
    """If one version only makes the other more exact (3.12 and 3.12.1), the more exact one."""
    for short, long in ((one, other), (other, one)):
        if f"{long.version}.".startswith(f"{short.version}."):
            return long
    return None


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


def poetry_package(tree: Tree, data: Mapping[str, Any]) -> bool:
    """Whether `poetry install` would install the project itself: not if it has no package, only files."""
    tool = toml.table(data, "tool", "poetry")
    if "build-system" not in data or tool.get("package-mode") is False:
        return False
    name = tool.get("name") or toml.table(data, "project").get("name")
    package = re.sub(r"[-.]+", "_", name) if isinstance(name, str) else ""
    files = tree.files()
    return "packages" in tool or any(Path(base, package, "__init__.py").as_posix() in files for base in ("", "src"))
