"""An environment of its own, not the app's, for a program from PyPI that the build runs: a generator of pages, with
what it needs according to the project's files, else its configuration. Other runtimes use this."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from receiver.manifest import Tree, toml
from receiver.runtimes.base import Made, Project, Step
from receiver.runtimes.python import project as said
from receiver.runtimes.python import requirements
from receiver.runtimes.python.interpreter import system_python
from receiver.runtimes.python.requirements import normal

RECIPE = 1
# Usual places of a manual's requirements, the most important first.
_USUAL = (
    *(re.compile(rf"{place}/(?:source/)?requirements(?:[-_]docs?)?\.txt") for place in ("docs", "doc")),
    re.compile(r"source/requirements\.txt"),
    re.compile(r"(?:requirements/)?(?:requirements[-_.]docs?|docs?[-_.]requirements)\.txt"),
    re.compile(r"requirements/docs?\.txt"),
)
_READ_THE_DOCS = (".readthedocs.yaml", ".readthedocs.yml")
_GROUPS = ("docs", "doc", "documentation")
# Extensions with which a manual imports the project that it describes.
_IMPORTS = re.compile(r"autodoc|autosummary|autoapi|mkdocstrings|importlib\.metadata|importlib_metadata|pkg_resources")

_FRAMEWORKS = frozenset({"django", "flask", "fastapi", "fastapi[standard]", "starlette", "quart", "litestar", "aiohttp",
                         "tornado", "bottle", "sanic", "pyramid", "falcon", "cherrypy", "gunicorn", "uvicorn"})  # fmt: skip


@dataclass
class Needs:
    """Words for `uv pip install`; `files` are those that decide the result, [] if something else does, too."""

    words: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    told: str = ""


def has(project: Project, package: str) -> bool:
    """Whether the app's own environment has a package."""
    called = normal(package.partition("[")[0])
    return "python" in dict(project.manifest.runtimes) and called in said.packages(project.tree)


def serves(tree: Tree) -> bool:
    """Whether a project requires a web framework: then it is an app, whatever else it has."""
    return bool(said.packages(tree) & _FRAMEWORKS)


def environment(project: Project, directory: str, package: str, named: Sequence[str], file: str) -> Made:
    """The directory of the slug with `package` and its requirements. If the project does not list these, `named` are
    the packages that its configuration `file` names. Raises Rejected for a list that cannot be read."""
    wanted = _needs(project.tree, package, named, file)
    told = said.python_version(project.tree, "")
    version = ("--python", told.version) if told.version else ()
    uv, place = str(project.tools / "uv"), f"{project.slug}/{directory}"
    variables = {
        "UV_CACHE_DIR": str(project.cache / "uv"), "UV_LINK_MODE": "copy", "UV_NO_PROGRESS": "1",
        "UV_PYTHON_CACHE_DIR": str(project.cache / "python"), "UV_PYTHON_INSTALL_DIR": f"{project.slug}/.python",
        "UV_PYTHON_PREFERENCE": "system", "VIRTUAL_ENV": place,
    }  # fmt: skip
    steps = (
        Step(
            "Making an environment for the pages", (uv, "venv", "--quiet", "--no-project", *version, place), variables
        ),
        Step(f"Installing {wanted.told}", (uv, "pip", "install", *wanted.words), variables),
    )
    blobs = [(path, project.tree.files().get(path, "")) for path in wanted.files]
    facts = [
        RECIPE,
        system_python(),
        told.version,
        wanted.words,
        blobs,
        sorted(project.settings.build_environment.items()),
    ]
    key = hashlib.sha256(repr(facts).encode()).hexdigest() if wanted.files else ""
    return Made(directory, key, steps)


def _needs(tree: Tree, package: str, named: Sequence[str], file: str) -> Needs:
    listed = _listed(tree, package)
    read = [requirements.read(tree, path) for path in listed]
    names = {name.partition("[")[0] for one in read for name in one.names}
    words = [word for path in listed for word in ("-r", path)]
    files = [path for one in read for path in one.files]
    own, grouped = _own(tree, file)
    words += own
    # A group of the project's own names the plugins; a list with hashes allows nothing beside it.
    more = () if any(one.hashed for one in read) else (package,) if grouped else (package, *named)
    added = [spec for spec in more if normal(spec.partition("[")[0]) not in names]
    closed = not own and not any(one.open for one in read)
    told = ", ".join([*listed, *(["the project's own part for it"] if own else []), *added])
    return Needs([*words, *added], [*files, file] if closed else [], told)


def _listed(tree: Tree, package: str) -> list[str]:
    """The requirements files to use."""
    files = tree.files()
    for name in _READ_THE_DOCS:
        said = re.findall(r"^[ \t-]*requirements:[ \t]*['\"]?([\w./-]+)", _text(tree, name), re.MULTILINE)
        if found := [path for path in said if path in files]:
            return found
    for usual in _USUAL:
        if there := sorted(filter(usual.fullmatch, files)):
            return there[:1]
    top = "requirements.txt"
    wanted = normal(package.partition("[")[0])
    return [top] if top in files and any(wanted in name for name in requirements.read(tree, top).names) else []


def _own(tree: Tree, file: str) -> tuple[list[str], bool]:
    """The words that install the project itself, if the manual needs it, and whether one of the project's own groups
    has the program that makes the manual."""
    files = tree.files()
    data = toml.read(tree, "pyproject.toml")
    optional = toml.table(data, "project", "optional-dependencies")
    if extra := next((name for name in _GROUPS if name in optional), ""):
        return ["-e", f".[{extra}]"], True
    group = next((name for name in _GROUPS if name in toml.table(data, "dependency-groups")), "")
    words = ["--group", group] if group else []
    package = "build-system" in data or "setup.py" in files
    if package and _IMPORTS.search(_text(tree, file)):
        words += ["-e", "."]
    return words, bool(group)


def _text(tree: Tree, path: str) -> str:
    return (tree.read(path) or b"").decode(errors="replace")
