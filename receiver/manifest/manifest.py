"""What a commit says of its app, from Procfile, shipit.yml and app.json, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from receiver.manifest import app_json, command, procfile, project, shipit_yml
from receiver.manifest.app_json import AppJson
from receiver.manifest.problems import Problems, nearest
from receiver.manifest.procfile import Line, Procfile
from receiver.manifest.section import Section
from receiver.manifest.shipit_yml import ProcessSettings, ShipitYml
from receiver.manifest.tree import Tree, subtree
from receiver.model import WEB, Check, CheckKind, Listen, ProcessType
from receiver.names import ConfigKey, Domain, TypeName

# What the build makes inside the slug.
OURS = (".venv", ".python")


@dataclass(frozen=True)
class Manifest:
    """`root`: only this directory of the commit is the app ("" = all of it). `formation`: what runs before anybody
    scales, every process type is in it. `keep`: 0 = the server's, `warm`: None = the server's. `env`: defaults of config vars. `python`: a
    version or specifier, "" = any. `sections`: what each further section keeps. `notices`: lines the pusher should see."""

    processes: tuple[ProcessType, ...]
    formation: tuple[tuple[TypeName, int], ...]
    release_command: str = ""
    domains: tuple[Domain, ...] = ()
    build_config: tuple[ConfigKey, ...] = ()
    build_command: str = ""
    root: str = ""
    python: str = ""
    env: tuple[tuple[ConfigKey, str], ...] = ()
    keep: int = 0
    warm: int | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def read_manifest(tree: Tree, sections: Sequence[Section] = ()) -> Manifest:
    """Read the manifest of a commit; raises Rejected that tells every mistake with file and line.

    `sections` are further ones that shipit.yml may have (ops/all.py has them).
    """
    said = shipit_yml.read(tree, sections)
    app = subtree(tree, said.root)
    problems = Problems()
    _check_tree(app, said, problems)
    lines = procfile.read(app, problems)
    dokku = app_json.read(app, problems)
    problems.check()
    requirements = project.kind(app).value or "requirements.txt"
    notices = list(dokku.notices)
    lines = _without_runners(lines, notices) if lines else _detected(app, notices)
    if lines.wsgi and "gunicorn" not in project.packages(app):
        missing = "wsgi: starts gunicorn, which is not among the requirements."
        problems.add(lines.processes[WEB].where, missing, f"Add gunicorn to {requirements}.")
    _check_types(lines, said, dokku, problems)
    processes = tuple(_process(kind, line, app, said, dokku, problems) for kind, line in lines.processes.items())
    problems.check()
    formation = tuple((process.type, _count(process.type, said, dokku)) for process in processes)
    if not any(count for _, count in formation):
        notices.append(f"No process runs until you scale one: {processes[0].type}=1 (only web starts by itself).")
    return Manifest(
        processes=processes,
        formation=formation,
        release_command=_release_command(lines.release, said, dokku),
        domains=said.domains,
        build_config=said.build_config,
        build_command=said.build_command,
        root=said.root,
        python=project.python_version(app, said.python).version,
        env=said.env,
        keep=said.keep,
        warm=said.warm,
        sections=said.sections,
        notices=tuple(notices),
    )


def _check_tree(app: Tree, said: ShipitYml, problems: Problems) -> None:
    files = app.files()
    if said.root and not files:
        problems.add(shipit_yml.NAME, f"build.root names {said.root!r}, which is not a directory of this commit.")
    for name in OURS:
        inside = next((path for path in files if path == name or path.startswith(name + "/")), None)
        if inside:
            problems.add(inside, f"{name} is made by the build and cannot be in the commit.",
                         f"git rm -r --cached {name}; echo {name}/ >> .gitignore")  # fmt: skip


def _without_runners(lines: Procfile, notices: list[str]) -> Procfile:
    """The same lines without a leading `uv run`: the environment is on the PATH already."""

    def plain(line: Line) -> Line:
        text, runner = command.without_runner(line.command)
        if runner:
            notices.append(f"{line.where}: `{runner} run` is left out; the environment is on the PATH.")
        return replace(line, command=text)

    processes = {kind: plain(line) for kind, line in lines.processes.items()}
    return Procfile(processes, plain(lines.release) if lines.release else None, lines.wsgi)


def _detected(app: Tree, notices: list[str]) -> Procfile:
    from receiver.manifest import detect

    text, notice = detect.web_command(app)
    notices.append(notice)
    return Procfile({WEB: Line(text, 0)}, None)


def _check_types(lines: Procfile, said: ShipitYml, dokku: AppJson, problems: Problems) -> None:
    """Every process type that shipit.yml or app.json speaks of must have a line in the Procfile."""
    spoken: list[tuple[str, str]] = [(kind, settings.where) for kind, settings in said.processes.items()]
    spoken += [(kind, where) for kind, (_, where) in [*dokku.counts.items(), *dokku.checks.items()]]
    for kind, where in spoken:
        if kind not in lines.processes:
            message = f"the Procfile has no line for {kind!r}.{nearest(kind, lines.processes)}"
            problems.add(where, message, f"It has: {', '.join(lines.processes)}")


def _process(kind: TypeName, line: Line, app: Tree, said: ShipitYml, dokku: AppJson, problems: Problems) -> ProcessType:
    settings = said.processes.get(kind, ProcessSettings(line.where))
    listen = settings.listen or (command.listen_mode(line.command, app.read) if kind == WEB else Listen.NONE)
    check = _check(kind, listen, settings, dokku.checks, problems)
    if kind == WEB and settings.listen is None:
        _check_address(line, problems)
    return ProcessType(kind, line.command, listen, check, settings.drain, settings.limits)


def _check(
    kind: TypeName,
    listen: Listen,
    settings: ProcessSettings,
    dokku: Mapping[str, tuple[Check, str]],
    problems: Problems,
) -> Check:
    default = Check(CheckKind.HTTP if kind == WEB and listen is not Listen.NONE else CheckKind.UPTIME)
    base, where = dokku.get(kind, (default, ""))
    if "kind" in settings.check:
        # A new kind of check starts afresh: app.json's path means nothing to it.
        base, where = Check(settings.check["kind"]), settings.check_where
    check = replace(base, **settings.check)
    if check.kind in (CheckKind.HTTP, CheckKind.TCP) and listen is Listen.NONE:
        asked = "path" if check.kind is CheckKind.HTTP else "tcp"
        problems.add(where or settings.check_where, f"a {asked} check of {kind}, which does not listen.",
                     f"In shipit.yml:  processes: {{{kind}: {{listen: socket}}}}")  # fmt: skip
    if check.kind is CheckKind.UPTIME and check.settle >= check.timeout:
        problems.add(
            where or settings.check_where, f"settle ({check.settle} s) does not fit into timeout ({check.timeout} s)."
        )
    return check


def _check_address(line: Line, problems: Problems) -> None:
    """A fixed address is one that nobody will connect to."""
    server = command.server(line.command)
    if server and server.address and "$" not in line.command:
        problems.add(line.where, f"{server.name} listens on {server.address}, but requests come to $PORT or $SOCKET.",
                     "Leave the address out of the command: shipit tells gunicorn and uvicorn where to listen.")  # fmt: skip


def _count(kind: TypeName, said: ShipitYml, dokku: AppJson) -> int:
    settings = said.processes.get(kind)
    if settings and settings.count is not None:
        return settings.count
    if kind in dokku.counts:
        return dokku.counts[kind][0]
    return 1 if kind == WEB else 0


def _release_command(line: Line | None, said: ShipitYml, dokku: AppJson) -> str:
    """shipit.yml's wins; Dokku runs both its predeploy script and the Procfile's release, in this order."""
    commands = [text for text in (dokku.predeploy, line.command if line else "") if text]
    if said.release or len(commands) < 2:
        return said.release or "".join(commands)
    return " &&\n".join(f"(\n{text}\n)" for text in commands)
