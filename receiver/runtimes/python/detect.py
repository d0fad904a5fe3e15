"""A project without a Procfile: recognises its framework, and suggests the line to write.

Sources are parsed, never run. Where the project requires no server, the build adds one (brought.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass

from receiver.manifest.problems import reject
from receiver.manifest.tree import Tree
from receiver.runtimes.base import Suggestion
from receiver.runtimes.python.project import Kind, how_to_add, kind, packages

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
_FACTORY = "create_app"
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
        if self.target.endswith("()"):
            name = self.target[:-2]
            return f"uvicorn --factory {name}" if self.server == "uvicorn" else f'gunicorn "{self.target}"'
        option = "--app-dir" if self.server == "uvicorn" else "--chdir"
        place = f"{option} {self.directory} " if self.directory else ""
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
    found = find(tree)
    if found is None:
        from receiver.runtimes.python import script

        return script.suggestion(tree)
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
    """The Django, Flask or FastAPI app of a tree, or None."""
    return _django(tree) or _app(tree)


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
        for path in (base + candidate for candidate in _CANDIDATES):
            if path not in files:
                continue
            module = _module(path.removeprefix("src/")) if base and _installed(tree) else _module(path)
            for name, (made, line) in _assignments(tree, path).items():
                if made in _FRAMEWORKS:
                    return Found(made, f"{module}:{name}", f"{path}:{line}")
                if _MAKERS.fullmatch(made) and name in _NAMES and (framework := _required(tree)):
                    return Found(framework, f"{module}:{name}", f"{path}:{line}")
                if made.endswith("()") and factory is None:
                    factory = Found(made[:-2], f"{module}:{name}()", f"{path}:{line}")
    return factory


def _required(tree: Tree) -> str:
    """The framework among the requirements, if the app is made by a function in another file."""
    needed = {name.partition("[")[0] for name in packages(tree)}
    return next((name for name in _FRAMEWORKS if name.lower() in needed), "")


def _installed(tree: Tree) -> bool:
    """Whether the package of a src/ layout is installed, so that its modules are imported without `src.`."""
    return "pyproject.toml" in tree.files() or "setup.py" in tree.files()


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _assignments(tree: Tree, path: str) -> dict[str, tuple[str, int]]:
    """Names bound at module level: to a call of a class, `Class`; by a factory that makes one, `Class()`; with lines."""
    raw = tree.read(path)
    if raw is None or len(raw) > MAX_SOURCE:
        return {}
    try:
        module = ast.parse(raw)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    bound: dict[str, tuple[str, int]] = {}
    for node in module.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    bound[target.id] = (_called(node.value), node.lineno)
        elif isinstance(node, ast.FunctionDef) and node.name == _FACTORY and not node.args.args:
            made = {_called(part) for part in ast.walk(node) if isinstance(part, ast.Call)} & set(_FRAMEWORKS)
            if made:
                bound[node.name] = (f"{min(made)}()", node.lineno)
    return bound


def _called(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
