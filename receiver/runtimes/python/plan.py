"""The build of a Python project, by uv: the first of uv.lock, poetry.lock, Pipfile.lock, requirements.txt, pyproject.toml, setup.py.

A lock file is installed exactly as it is, or the build fails and says how to renew it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from receiver.errors import Rejected
from receiver.manifest import toml
from receiver.runtimes import packed
from receiver.runtimes.base import BuildPlan, Made, Project, Step
from receiver.runtimes.python import brought, django, own, requirements, scm
from receiver.runtimes.python import project as said
from receiver.runtimes.python.interpreter import system_python
from receiver.runtimes.python.lock import poetry
from receiver.runtimes.python.packages import packages
from receiver.runtimes.python.project import Kind

# Changed whenever the steps below make a different environment from the same files.
RECIPE = 2

_LOCAL = re.compile(r"source = \{[^{}]*\b(?:editable|directory|path) = ")
# If no Python fits, print which ones exist. The words of the command are arguments, never shell text.
_EXPLAIN = '"$@" && exit; code=$?; echo "Python on this server:" >&2; "$1" python list --only-installed >&2; exit $code'
# The same for an exact version, $1, and its minor version, $2. If the exact one is no longer available, or nothing can
# be downloaded, the server's own Python of the same minor version is used.
_NEARLY = """
exact=$1; near=$2; shift 2
"$@" --python "$exact" && exit; code=$?
if "$@" --python "$near" --no-python-downloads 2>/dev/null; then
    echo "Python $exact could not be had: this is the server's own $near, $(.venv/bin/python --version)."; exit
fi
echo "Python on this server:" >&2; "$1" python list --only-installed >&2; exit $code
"""

# For a copied environment that has another version, $2, of the wheel $1. If the new wheel requires everything that the
# old one did (its metadata is $3), install only the wheel and its new requirements; no index is asked for other
# packages. Otherwise, or if another package would change by that, run the whole command.
_SAME_NEEDS = """
wheel=$1; old=$(echo .venv/lib/python3*/site-packages/"$2"-*.dist-info/METADATA); new=$3; shift 3
needs() { tr -d '\\r' <"$1" | sed '/^$/q' | grep '^Requires-'; }
besides() { needs "$1" | grep -Fvx -e "$(needs "$2")"; }
if [ -f "$new" ] && [ -f "$old" ] && [ -z "$(besides "$old" "$new")" ]; then
    added=$(besides "$new" "$old" | sed -n 's/^Requires-Dist: *//p')
    before=$(ls -d .venv/lib/python3*/site-packages/*.dist-info)
    set -f; IFS='
'
    if [ -z "$added" ] || "$1" pip install -- $added && ls -d $before >/dev/null 2>&1; then
        exec "$1" pip install --no-index --no-deps "./$wheel"
    fi
fi
exec "$@"
"""

Steps = tuple[Step, ...]
ENVIRONMENT = ".venv"
COPIER = "receiver.runtimes.python.copied"


def plan(project: Project) -> BuildPlan:
    """The environment of a Python project, and the steps that make it."""
    kind = said.kind(project.tree)
    decides, makes, fills = _BY_KIND[kind](project)
    lines = (
        requirements.read(project.tree, said.source(project.tree, kind)).lines
        if kind is Kind.REQUIREMENTS and decides
        else []
    )
    if own.is_wanted(project.tree, kind, [process.command for process in project.manifest.processes]):
        decides, fills = [], (*fills, _uv(project, "Installing the project itself", "pip", "install", "-e", "."))
        lines = []
    if added := brought.specs(project.tree, project.manifest):
        names = ", ".join(re.split(r"[<>=\[]", spec)[0] for spec in added)
        fills = (*fills, _uv(project, f"Installing {names}, if the requirements do not", "pip", "install", *added))
    made = Made(
        name=ENVIRONMENT,
        key=_key(project, kind, decides, added) if decides else "",
        steps=(*makes, *fills),
        seed_key=_key(project, kind, (), added) if decides else "",
        seeded=_with_same_needs(project, fills) if kind is Kind.WHEEL else fills,
        copier=COPIER,
        requires=(*(tuple(dict.fromkeys(lines)) or packages(project.tree, kind, decides)), *(added if decides else ())),
        adds=_uv(project, "Installing what requirements.txt adds", "pip", "install") if lines else None,
    )
    environment = {**_environment(project), **scm.environment(project)}
    steps = (*_hook(project, "pre_compile"), *django.steps(project), *_hook(project, "post_compile"))
    return BuildPlan(f"python {_version(project)}".rstrip(), environment, (made,), steps)


def _hook(project: Project, name: str) -> Steps:
    """The project's own script around a build, as Heroku's Python buildpack runs it."""
    path = f"bin/{name}"
    return (Step(f"Running {path}", ("/bin/bash", path)),) if path in project.tree.files() else ()


def _version(project: Project) -> str:
    return project.manifest.version("python")


def _venv(project: Project) -> str:
    return str(project.slug / ENVIRONMENT)


def _environment(project: Project) -> Mapping[str, str]:
    return {
        "PIP_CACHE_DIR": str(project.cache / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_CACHE_DIR": str(project.cache / "uv"),
        # The service cannot write .pyc files, so without this every start would compile everything again.
        "UV_COMPILE_BYTECODE": "1",
        # A hard link would let a later build change this release through the cache, which it can write.
        "UV_LINK_MODE": "copy",
        "UV_NO_PROGRESS": "1",
        "UV_PROJECT_ENVIRONMENT": _venv(project),
        "UV_PYTHON_CACHE_DIR": str(project.cache / "python"),
        # In the slug, because the app's user must run it and a rollback must find it.
        "UV_PYTHON_INSTALL_DIR": str(project.slug / ".python"),
        "UV_PYTHON_PREFERENCE": "system",
        "VIRTUAL_ENV": _venv(project),
    }


def _key(project: Project, kind: Kind, decides: Iterable[str], added: Sequence[str]) -> str:
    """The digest of everything that decides the environment (docs/architecture.md, "Runtimes")."""
    files = project.tree.files()
    blobs = sorted((path, files[path]) for path in {*decides, "uv.toml"} if path in files)
    # The interpreter counts: packages are compiled for one version, and their path contains it.
    told = sorted(project.settings.build_environment.items())
    facts: list[object] = [RECIPE, system_python(), kind.value, _version(project), told, blobs]
    facts += [added] if added else []
    with suppress(Rejected):
        # uv reads this table whatever it installs from, but not if the file is invalid TOML.
        if table := toml.table(toml.read(project.tree, "pyproject.toml"), "tool", "uv"):
            facts.append(json.dumps(table, sort_keys=True, default=str))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# Each of these returns the files that decide the environment (none: it is for this release only), the steps that make
# an empty one, and the steps that fill it.
Planned = tuple[list[str], Steps, Steps]


def _uv_lock(project: Project) -> Planned:
    # uv reads `requires-python` itself; a version from another file is checked in a step of its own.
    wish = _wish(project) if _version(project)[:1].isalnum() else ()
    extra = filter(None, said.group(toml.read(project.tree, "pyproject.toml")))
    data = toml.read(project.tree, "pyproject.toml")
    # A workspace whose top is not a project itself: install all of its members.
    every = ("--all-packages",) if "project" not in data and toml.table(data, "tool", "uv", "workspace") else ()
    sync = _uv(project, "Installing from uv.lock", "sync", "--locked", "--no-dev", *every, *extra, *wish)
    sync = replace(sync, argv=("/bin/sh", "-c", own.SYNC, "sh", *sync.argv))
    raw = project.tree.read(Kind.UV.value)
    local = raw is None or _LOCAL.search(raw.decode(errors="replace")) is not None
    return ([] if local else ["uv.lock", "pyproject.toml"]), ((_make_venv(project),) if wish else ()), (sync,)


def _poetry(project: Project) -> Planned:
    pyproject = toml.read(project.tree, "pyproject.toml")
    lock = project.tree.read(Kind.POETRY.value)
    direct = lock is None or poetry.direct(_lock_version(lock))
    steps = [_lockfile(project, Kind.POETRY)] if direct else _exported(project)
    own = said.poetry_package(project.tree, pyproject)
    if own:
        steps.append(_uv(project, "Installing the project", "pip", "install", "--no-deps", "-e", "."))
    local = lock is None or re.search(rb'^type = "(?:directory|file)"', lock, re.MULTILINE) is not None
    return ([] if own or local else ["poetry.lock", "pyproject.toml"]), (_make_venv(project),), tuple(steps)


def _pipenv(project: Project) -> Planned:
    lock = project.tree.read(Kind.PIPENV.value)
    local = lock is None or re.search(rb'"(?:path|file|editable)":', lock) is not None
    return ([] if local else ["Pipfile.lock", "Pipfile"]), (_make_venv(project),), (_lockfile(project, Kind.PIPENV),)


def _lockfile(project: Project, kind: Kind) -> Step:
    """The build step reads the lock file and gives its packages, versions and hashes to uv."""
    argv = (
        str(project.tools / "python"),
        "-I",
        "-m",
        "receiver.runtimes.python.lockfile",
        kind.value,
        str(project.tools / "uv"),
    )
    return Step(f"Installing from {kind.value}", argv)


def _exported(project: Project) -> list[Step]:
    """A poetry.lock from before Poetry 2 needs Poetry's resolver; uv fetches Poetry and keeps it in the cache."""
    wanted = str(project.slug / ENVIRONMENT / "requirements.poetry.txt")
    export = ("poetry", "export", "--only", "main", "--output", wanted)
    tool = ("tool", "run", "--from", "poetry>=2.2,<3", "--with", "poetry-plugin-export>=1.9,<2", *export)
    return [
        _uv(project, "Reading poetry.lock with Poetry (`poetry lock` with Poetry 2 spares this)", *tool),
        _uv(project, "Installing from poetry.lock", "pip", "install", "--exact", "--no-deps", "-r", wanted),
    ]


def _lock_version(lock: bytes) -> str:
    match = re.search(rb'^lock-version = "([0-9.]+)"', lock, re.MULTILINE)
    return match[1].decode() if match else ""


def _requirements(project: Project) -> Planned:
    name = said.source(project.tree, Kind.REQUIREMENTS)
    found = requirements.read(project.tree, name)
    hashes = ("--require-hashes",) if found.hashed else ()
    install = _uv(project, f"Installing from {name}", "pip", "install", "--exact", "-r", name, *hashes)
    return ([] if found.open else found.files), (_make_venv(project),), (install,)


def _pyproject(project: Project) -> Planned:
    data = toml.read(project.tree, "pyproject.toml")
    if "build-system" in data:
        return _setup(project)
    table = toml.table(data, "project")
    local = bool(table.get("dynamic")) or "file:" in json.dumps(table.get("dependencies", []), default=str)
    local = local or bool(toml.table(data, "tool", "uv", "sources"))
    if not table:
        return ["pyproject.toml"], (_make_venv(project),), ()
    option, name = said.group(data)
    extra = {"--extra": (option, name), "--group": (option, f"pyproject.toml:{name}"), "": ()}[option]
    install = _uv(
        project,
        "Installing the dependencies of pyproject.toml",
        "pip",
        "install",
        "--exact",
        "-r",
        "pyproject.toml",
        *extra,
    )
    return ([] if local else ["pyproject.toml"]), (_make_venv(project),), (install,)


def _setup(project: Project) -> Planned:
    """Installed as editable, so that templates and data files are found in place, even if they are not package data."""
    install = _uv(project, "Installing the project and its dependencies", "pip", "install", "-e", ".")
    alone = (
        said.source(project.tree, said.kind(project.tree)) == "setup.cfg"
        and "pyproject.toml" not in project.tree.files()
    )
    # Installers need one of the other files; setuptools then reads setup.cfg.
    write = 'echo "import setuptools; setuptools.setup()" >setup.py'
    first = (Step("Making a setup.py for setup.cfg", ("/bin/sh", "-c", write)),) if alone else ()
    return [], (_make_venv(project),), (*first, install)


def _wheel(project: Project) -> Planned:
    """The wheel and its requirements: from requirements.txt, and only from wheels/ if that exists. The versions found
    the first time stay: later releases of the same wheel share its environment."""
    wheel, files = said.source(project.tree, Kind.WHEEL), project.tree.files()
    house = sorted(path for path in files if path.startswith("wheels/"))
    offline = ("--no-index", "--find-links", "wheels") if house else ()
    listed = "requirements.txt" in files
    found = requirements.read(project.tree, "requirements.txt") if listed else requirements.Requirements()
    decides = [] if found.open else [wheel, *house, *found.files]
    title, install = f"Installing {wheel}", ("pip", "install", "--exact", *offline)
    if found.hashed:
        fills: Steps = (
            _uv(project, "Installing from requirements.txt", *install, "--require-hashes", "-r", "requirements.txt"),
            _uv(project, title, "pip", "install", "--no-index", "--no-deps", f"./{wheel}"),
        )
    else:
        more = ("-r", "requirements.txt") if listed else ()
        fills = (_uv(project, title, *install, f"./{wheel}", *more),)
    return decides, (_make_venv(project),), fills


def _with_same_needs(project: Project, fills: Steps) -> Steps:
    """The steps that complete a copied environment for a wheel: only the wheel, if nothing else can have changed."""
    wheel = said.source(project.tree, Kind.WHEEL)
    if "requirements.txt" in project.tree.files() or any(path.startswith("wheels/") for path in project.tree.files()):
        return fills
    told = f"{packed.BESIDE}/{wheel}/METADATA"
    argv = ("/bin/sh", "-c", _SAME_NEEDS, "sh", wheel, wheel.partition("-")[0], told, *fills[0].argv)
    return (replace(fills[0], argv=argv), *fills[1:])


def _nothing(project: Project) -> Planned:
    return ["runtime.txt"], (_make_venv(project),), ()


_BY_KIND = {
    Kind.UV: _uv_lock, Kind.POETRY: _poetry, Kind.PIPENV: _pipenv, Kind.REQUIREMENTS: _requirements,
    Kind.PYPROJECT: _pyproject, Kind.SETUP: _setup, Kind.WHEEL: _wheel,
    Kind.NOTHING: _nothing,
}  # fmt: skip


def _make_venv(project: Project) -> Step:
    wish = _wish(project)
    near = re.fullmatch(r"(3\.[0-9]+)\.[0-9]+", _version(project))
    words = () if near else wish
    make = _uv(project, "Making the environment", "venv", "--quiet", "--no-project", *words, _venv(project))
    if not wish:
        return make
    argv = ("/bin/sh", "-c", _EXPLAIN, "sh", *make.argv)
    if near:
        argv = ("/bin/sh", "-c", _NEARLY, "sh", near[0], near[1], *make.argv)
    return replace(make, title=f"Making the environment (Python {wish[1]})", argv=argv)


def _wish(project: Project) -> tuple[str, ...]:
    return ("--python", _version(project)) if _version(project) else ()


def _uv(project: Project, title: str, *words: str) -> Step:
    return Step(title, (str(project.tools / "uv"), *words))
