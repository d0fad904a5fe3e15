"""A project without a Procfile: recognises its framework, and suggests the line to write.

Sources are parsed, never run. Where the project requires no server, the build adds one (brought.py).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from receiver.errors import Rejected
from receiver.manifest import toml
from receiver.manifest.problems import reject
from receiver.manifest.tree import Tree
from receiver.runtimes.base import Suggestion
from receiver.runtimes.python.project import Kind, how_to_add, kind, packages
from receiver.runtimes.python.told import flask_app

MAX_SOURCE = 256 * 1024

# The files where `flask run` and `fastapi run` look, and further common names.
_CANDIDATES = ("app.py", "wsgi.py", "main.py", "application.py", "asgi.py", "api.py", "server.py", "app/main.py",
               "app/__init__.py", "app/app.py", "app/api.py")  # fmt: skip
_FRAMEWORKS = {
    "Flask": "Flask",
    "FastAPI": "FastAPI",
    "Starlette": "Starlette",
    "Quart": "Quart",
    "Litestar": "Litestar",
}
_DJANGO_ASGI = "Django by ASGI"
_ASGI = frozenset({_DJANGO_ASGI, "FastAPI", "Starlette", "Quart", "Litestar"})
# Where a package of the project may have its app. Such an app is used if no other package has one.
_INSIDE = ("__init__.py", "app.py", "main.py", "wsgi.py", "asgi.py", "application.py", "server.py")
_ASIDE = frozenset({"tests", "test", "docs", "doc", "examples", "example", "migrations", "scripts", "alembic"})
MAX_PACKAGES, MAX_LIKELY = 8, 32 * 1024
_FACTORIES = frozenset({"create_app", "make_app", "build_app", "get_app", "create_application", "get_application"})
_PLAIN = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
# The usual names of a module-level app, and of functions that make one.
_NAMES = ("app", "application", "api")
_MAKERS = re.compile(r"(?:create|make|get|build|init|setup)_(?:\w+_)?app(?:lication)?")


@dataclass(frozen=True)
class Found:
    """A framework's app: `target` is `module:object`, `where` the file and line that say so; `directory`
    is where its modules are, "" = at the top."""

    framework: str
    target: str
    where: str
    directory: str = ""

    @property
    def server(self) -> str:
        return "uvicorn" if self.framework in _ASGI else "gunicorn"

    @property
    def command(self) -> str:
        option = "--app-dir" if self.server == "uvicorn" else "--chdir"
        place = f"{option} {self.directory} " if self.directory else ""
        if self.target.endswith("()"):
            name = self.target[:-2]
            return (
                f"uvicorn {place}--factory {name}" if self.server == "uvicorn" else f'gunicorn {place}"{self.target}"'
            )
        return f"{self.server} {place}{self.target}"


# Other servers that a project may require instead, with the command that listens on shipit's address.
_OTHERS = {
    "gunicorn": (
        ("uwsgi", "uwsgi --http-socket 127.0.0.1:$PORT --master --processes 2 --die-on-term --module {target}"),
        ("waitress", "waitress-serve --unix-socket=$SOCKET --unix-socket-perms=660 {target}"),
        ("granian", "granian --interface wsgi --host 127.0.0.1 --port $PORT {target}"),
        ("hypercorn", "hypercorn --bind unix:$SOCKET {target}"),
    ),
    "uvicorn": (
        ("hypercorn", "hypercorn --bind unix:$SOCKET {target}"),
        ("daphne", "daphne -u $SOCKET {target}"),
        ("granian", "granian --interface asgi --host 127.0.0.1 --port $PORT {target}"),
        ("gunicorn", "gunicorn -k uvicorn.workers.UvicornWorker {target}"),
    ),
}


def _other(found: Found, needed: Collection[str]) -> str:
    """The command for another server that the project requires; "" if there is none that fits."""
    if found.target.endswith("()") or found.directory:
        return ""
    line = next((line for name, line in _OTHERS[found.server] if name in needed), "")
    return "" if "uvicorn.workers" in line and "uvicorn-worker" not in needed else line.format(target=found.target)


def suggestion(tree: Tree) -> Suggestion | None:
    """The command of `web` for a tree without a Procfile; None when no framework is recognised.

    Raises Rejected with the line to write if nothing lists the project's requirements.
    """
    if found := find(tree):
        return _suggested(tree, found)
    from receiver.runtimes.python import script

    if said := script.suggestion(tree):
        return said
    inside = _in_package(tree) if kind(tree) is not Kind.NOTHING else None
    return replace(_suggested(tree, inside), guess=True) if inside else None


def _suggested(tree: Tree, found: Found) -> Suggestion:
    needed = packages(tree)
    if found.server in needed or (found.server == "uvicorn" and needed & {"fastapi[standard]", "fastapi[all]"}):
        notice = f"No Procfile: {found.framework} at {found.where}, so `web: {found.command}`."
        return Suggestion(notice, web=found.command)
    if other := _other(found, needed):
        return Suggestion(f"No Procfile: {found.framework} at {found.where}, so `web: {other}`.", web=other)
    if kind(tree) is not Kind.NOTHING:
        notice = (
            f"No Procfile: {found.framework} at {found.where}, so `web: {found.command}`. {found.server} is not among the "
            f"requirements: the build adds one. To have the same for ever: {how_to_add(tree, found.server)}."
        )
        return Suggestion(notice, web=found.command)
    raise reject(
        found.where,
        f"There is no Procfile. This is {found.framework}, but {found.server} is not among the requirements.",
        f"{how_to_add(tree, found.server)}; then this is enough, or a Procfile with:\nweb: {found.command}",
    )


def find(tree: Tree) -> Found | None:
    """The Django, Flask or FastAPI app in one of the usual files of a tree, or None."""
    return _django(tree) or _app(tree)


def is_django(tree: Tree) -> bool:
    """Whether the app of a tree is a Django project, and not only beside one."""
    return _django(tree) is not None


def _django(tree: Tree) -> Found | None:
    """Django's manage.py, at the top or one directory below it, and the wsgi.py that its settings name."""
    files = tree.files()
    manage = sorted(
        (path for path in files if path.rpartition("/")[2] == "manage.py" and path.count("/") <= 1), key=len
    )
    if not manage or (len(manage) > 1 and "manage.py" not in files):
        return None
    directory = manage[0].rpartition("/")[0]
    below = f"{directory}/" if directory else ""
    if directory and not re.fullmatch(r"[A-Za-z0-9._-]+", directory):
        return None
    near = sorted(path for path in files if path.startswith(below) and path.removeprefix(below).count("/") in (1, 2))
    wsgi = [path for name in ("wsgi.py", "asgi.py") for path in near if path.endswith(f"/{name}")]
    settings = re.search(rb"""DJANGO_SETTINGS_MODULE['"]\s*,\s*['"]([\w.]+)['"]""", tree.read(manage[0]) or b"")
    if settings:
        package = settings[1].decode().split(".")[0]
        wsgi = [path for path in wsgi if path.startswith((f"{below}{package}/", f"{below}src/{package}/"))] or wsgi
    for path in wsgi:
        line = _assignments(tree, path).get("application")
        if line:
            framework = _DJANGO_ASGI if path.endswith("/asgi.py") else "Django"
            inside = path.removeprefix(below)
            if inside.startswith("src/") and not directory:
                inside, directory = inside.removeprefix("src/"), "src"
            return Found(framework, f"{_module(inside)}:application", f"{path}:{line[1]}", directory)
    return None


def _app(tree: Tree) -> Found | None:
    files = tree.files()
    factory: Found | None = None
    for base in ("", "src/"):
        for path in (base + candidate for candidate in (*flask_app(tree), *_CANDIDATES)):
            found = _in(tree, path) if path in files else None
            if found and not found.target.endswith("()"):
                return found
            factory = factory or found
    return factory


def _in(tree: Tree, path: str) -> Found | None:
    """The app of a file: an object of its, else a function that makes one."""
    bound = _assignments(tree, path)
    if not bound:
        return None
    directory = _started_in(tree, path)
    if directory:
        module = _module(path.removeprefix(f"{directory}/"))
    else:
        module = _module(path.removeprefix("src/") if path.startswith("src/") and _installed(tree) else path)
    factory: Found | None = None
    for name, (made, line) in bound.items():
        if made in _FRAMEWORKS:
            return Found(made, f"{module}:{name}", f"{path}:{line}", directory)
        if _MAKERS.fullmatch(made) and name in _NAMES and (framework := _required(tree)):
            return Found(framework, f"{module}:{name}", f"{path}:{line}", directory)
        if made.endswith("()") and factory is None:
            factory = Found(made[:-2], f"{module}:{name}()", f"{path}:{line}", directory)
    return factory


def _started_in(tree: Tree, path: str) -> str:
    """The directory that a file's imports are found from; "" = the top, or wherever its package is installed.

    A `from config import …` beside app/config.py is written to be started in app/. A file with `from .x import …` is
    imported as part of its package. What Python or a requirement brings may have the name of a file beside it.
    """
    files = tree.files()
    imported = _imports(tree, path) - sys.stdlib_module_names
    imported -= {name.partition("[")[0].replace("-", "_") for name in packages(tree)}
    above = path.removesuffix("/__init__.py").split("/")[:-1]
    if _is_part(tree, path):
        return ""
    for depth in range(len(above), 0, -1):
        place = "/".join(above[:depth])
        if not _PLAIN.fullmatch(place) or above[0] in imported:
            return ""
        beside = {name for name in imported if _has_module(files, f"{place}/{name}")}
        if any(not _has_module(files, name) for name in beside) and not (place == "src" and _installed(tree)):
            return place
    return ""


def _has_module(files: Collection[str], path: str) -> bool:
    return f"{path}.py" in files or f"{path}/__init__.py" in files


def _in_package(tree: Tree) -> Found | None:
    """The app of the only package that has one; None where several have."""
    files = tree.files()
    tops = sorted(
        path.removesuffix("__init__.py")
        for path in files
        if path.endswith("/__init__.py") and path.removeprefix("src/").count("/") == 1
    )
    places = [top for top in tops if top.split("/")[-2] not in _ASIDE][:MAX_PACKAGES]
    found: list[Found] = []
    for place in places:
        near = [place + name for name in _INSIDE if place + name in files and _is_likely(tree.read(place + name))]
        apps = [app for path in near if (app := _in(tree, path))]
        found += sorted(apps, key=lambda app: app.target.endswith("()"))[:1]
    return found[0] if len(found) == 1 else None


def _is_likely(raw: bytes | None) -> bool:
    """Whether it is worth parsing a source: at 32 KiB it takes 0.1 s, and whoever pushes says how many there are."""
    return raw is not None and len(raw) <= MAX_LIKELY and any(name.encode() in raw for name in _FRAMEWORKS)


def _required(tree: Tree) -> str:
    """The framework among the requirements, if the app is made by a function in another file."""
    needed = {name.partition("[")[0] for name in packages(tree)}
    return next((name for name in _FRAMEWORKS if name.lower() in needed), "")


def _installed(tree: Tree) -> bool:
    """Whether the package of a src/ layout is installed, so that its modules are imported without `src.`."""
    files = tree.files()
    if "src/__init__.py" in files:
        return False
    if "setup.py" in files:
        return True
    with suppress(Rejected):
        poetry = toml.table(toml.read(tree, "pyproject.toml"), "tool", "poetry")
        parts = poetry.get("packages")
        if isinstance(parts, list) and {"include": "src"} in parts:
            return False
    return "pyproject.toml" in files


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _assignments(tree: Tree, path: str) -> dict[str, tuple[str, int]]:
    """Names bound at module level: to a call of a class, `Class`; by a factory that makes one, `Class()`; with lines."""
    bound: dict[str, tuple[str, int]] = {}
    for node in _parsed(tree, path).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    bound[target.id] = (_called(node.value), node.lineno)
        elif isinstance(node, ast.FunctionDef) and node.name in _FACTORIES and _is_callable_alone(node.args):
            made = {_called(part) for part in ast.walk(node) if isinstance(part, ast.Call)} & set(_FRAMEWORKS)
            if made:
                bound[node.name] = (f"{min(made)}()", node.lineno)
    return bound


def _parsed(tree: Tree, path: str) -> ast.Module:
    """A source; empty where there is none, or none that Python of this server would read."""
    raw = tree.read(path)
    if raw is not None and len(raw) <= MAX_SOURCE:
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.parse(raw)
    return ast.Module([], [])


def _imports(tree: Tree, path: str) -> set[str]:
    """The first names of all modules that a file imports, those of its own package (`from .x`) apart."""
    return {
        name.split(".")[0]
        for node in ast.walk(_parsed(tree, path))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
            else []
        )
    }


def _is_part(tree: Tree, path: str) -> bool:
    """Whether a file imports from its own package (`from .x import …`)."""
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(_parsed(tree, path)))


def _is_callable_alone(wants: ast.arguments) -> bool:
    """Whether a function can be called without arguments: a server gives none."""
    return len(wants.posonlyargs) + len(wants.args) == len(wants.defaults) and None not in wants.kw_defaults


def _called(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
