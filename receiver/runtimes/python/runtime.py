"""The Python runtime: what is asked before a push is taken. The build is in plan.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from receiver.manifest import Problems, Pushed, Tree, toml
from receiver.manifest.command import Server
from receiver.model import WEB, ProcessEnv
from receiver.runtimes.base import Asked, BuildPlan, Evidence, Part, Project, Runtime, Slug, Suggestion, Trouble
from receiver.runtimes.python import command, interpreter, nearly, project, wheelfile
from receiver.runtimes.python.project import Kind

# uv's message if a package requires a newer Python.
_NEWER = re.compile(r"current Python version \([0-9.]+\) does not satisfy Python[>=~!,]*(3\.[0-9]+)")
_LACKING = re.compile(r"ModuleNotFoundError: No module named '([A-Za-z_]\w{0,60})")
# Modules that were part of Python → the last version that has each.
_LEFT = {
    **dict.fromkeys(("imp", "distutils", "asyncore", "asynchat", "smtpd"), "3.11"),
    **dict.fromkeys(("cgi", "cgitb", "crypt", "telnetlib", "pipes", "imghdr", "nntplib", "audioop"), "3.12"),
}
# Django's messages if a table is missing: with SQLite, PostgreSQL, MySQL.
_NO_TABLES = re.compile(
    r"django\.db\.utils\.(?:OperationalError: no such table|ProgrammingError: (?:relation .{1,200} does not exist|\(1146,))"
)
# uv's message if the wanted Python is not available.
_GONE = re.compile(r"No (?:interpreter|download) found for (?:Python |request for )?(?:cpython-)?([0-9]+\.[0-9.]+)")


class Python(Runtime):
    """Projects that have one of Python's files of requirements, or consist of Python files."""

    name = "python"
    makes = (".venv", ".python")
    reads = (*(kind.value for kind in Kind if kind is not Kind.NOTHING), "setup.cfg", ".python-version", "runtime.txt")
    tools = ("uv",)
    headers = ("python3-dev",)

    def finds(self, pushed: Pushed) -> Evidence | None:
        kind = project.kind(pushed.tree)
        if kind is not Kind.NOTHING:
            return Evidence(project.source(pushed.tree, kind))
        files = pushed.tree.files()
        told = next((path for path in (".python-version", "runtime.txt") if path in files), "")
        alone = next((path for path in files if (path.endswith(".py") and "/" not in path) or _is_made(path)), "")
        return Evidence(told or alone, weak=True) if told or alone else None

    def plan(self, project: Project) -> BuildPlan:
        # Lock files are only read when there is something to build.
        from receiver.runtimes.python import plan

        return plan.plan(project)

    def process(self, project: Project) -> ProcessEnv:
        return ProcessEnv(
            path=(".venv/bin",),
            variables=(
                # Otherwise output waits in a buffer, and appears in the log minutes late.
                ("PYTHONUNBUFFERED", "1"),
                ("VIRTUAL_ENV", "$SLUG/.venv"),
            ),
            # gunicorn's command line overrides these, and these override its configuration file; uvicorn reads
            # UVICORN_*.
            socket=(("GUNICORN_CMD_ARGS", "--bind=unix:$SOCKET $GUNICORN_CMD_ARGS"), ("UVICORN_UDS", "$SOCKET")),
        )

    def version(self, pushed: Pushed) -> str:
        return project.python_version(pushed.tree, super().version(pushed)).version

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        if (kind := project.kind(pushed.tree)) is Kind.WHEEL:
            return wheelfile.suggestion(pushed.tree, project.source(pushed.tree, kind))
        from receiver.runtimes.python import detect, django

        suggested = detect.suggestion(pushed.tree)
        return django.with_tables(pushed, suggested) if suggested and detect.is_django(pushed.tree) else suggested

    def example(self, pushed: Pushed) -> str:
        scripts = toml.table(toml.read(pushed.tree, "pyproject.toml"), "project", "scripts")
        if scripts:
            # A program of the project's own; its manual says how to tell it where to listen.
            return f"web: {next(iter(scripts))} --port $PORT"
        from receiver.runtimes.python import script

        if (alone := script.alone(pushed.tree)) and not script.serves(pushed.tree):
            # With a count, because only web runs without one.
            return f"worker: python {alone}\nand in shipit.yml:\nprocesses: {{worker: {{count: 1}}}}"
        return "web: gunicorn app:app" if project.kind(pushed.tree) is not Kind.NOTHING else ""

    def server(self, text: str, pushed: Pushed) -> Server | None:
        return command.server(text, pushed.tree.read)

    def command(self, text: str) -> tuple[str, str]:
        plain, runner = command.without_runner(text)
        return plain, f"{runner} run" if runner else ""

    def above(self, tree: Tree, root: str, problems: Problems) -> None:
        nearly.check_lock_above(tree, root, problems)

    def storage(self, pushed: Pushed) -> tuple[tuple[str, str], ...]:
        from receiver.runtimes.python import django

        return tuple((path, path) for path in django.loose(pushed))

    def asks(self, pushed: Pushed) -> Asked:
        from receiver.runtimes.python import django

        return django.asks(pushed)

    def writes(self, pushed: Pushed) -> list[tuple[str, str]]:
        from receiver.runtimes.python import django

        return [(path, path) for path in django.loose(pushed)]

    def notices(self, pushed: Pushed) -> list[str]:
        from receiver.runtimes.python import brought, django

        lines = pushed.procfile.processes.values() if pushed.procfile else ()
        known = project.kind(pushed.tree) is not Kind.SETUP
        lacking = brought.servers(pushed.tree, [line.command for line in lines]) if known else []
        told = [
            f"The Procfile starts {name}, which is not among the requirements: the build adds one. To have the same for "
            f"ever: {project.how_to_add(pushed.tree, name)}."
            for name in lacking
        ]
        return [*told, *django.notices(pushed)]

    def advice(self, line: str) -> str:
        if gone := _GONE.search(line):
            own = interpreter.system_python().rpartition("python")[2]
            return (
                f"Python {gone[1]} is not to be had any more. Name one that is, in place of runtime.txt, .python-version "
                f"and all else that wants it, in shipit.yml:  python: {own}"
            )
        if lacking := _LACKING.search(line):
            return _without(lacking[1])
        if _NO_TABLES.search(line):
            return (
                "The database lacks a table. Have each release make them, in the Procfile:  release: python manage.py migrate\n"
                "If it does so already, the commit lacks a migration:  python manage.py makemigrations; git add; git commit"
            )
        found = _NEWER.search(line)
        if not found:
            return ""
        return f"The app wants another Python than the server's. Name it in shipit.yml:  python: {found[1]}"

    def parts(self, slug: Slug) -> Iterator[Part]:
        from receiver.runtimes.python import installed

        return installed.environment(slug, ".venv")

    def trouble(self, slug: Path) -> Trouble | None:
        return interpreter.trouble(slug)

    def check(self, pushed: Pushed, problems: Problems) -> None:
        found = project.kind(pushed.tree)
        alone = found in (Kind.NOTHING, Kind.WHEEL) and "gunicorn" not in project.packages(pushed.tree)
        if alone and pushed.procfile and pushed.procfile.wsgi:
            problems.add(pushed.procfile.processes[WEB].where,
                         "wsgi: starts gunicorn, which is not among the requirements.",
                         f"{project.how_to_add(pushed.tree, 'gunicorn')}.")  # fmt: skip
        nearly.check(pushed.tree, found, problems)


def _without(module: str) -> str:
    """What to write if a module is not found."""
    if module == "pkg_resources":
        return "pkg_resources is of setuptools, up to 81. Add to the requirements:  setuptools<81"
    if last := _LEFT.get(module):
        return f"The module {module} left Python after {last}. Until the packages do without it, in shipit.yml:  python: {last}"
    return (
        f"Nothing that was installed has the module {module}. Add its package to the requirements; if it is for "
        "development, start with other settings (Django: config var DJANGO_SETTINGS_MODULE)."
    )


def _is_made(path: str) -> bool:
    return path.partition("/")[0] in Python.makes
