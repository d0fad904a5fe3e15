"""What a commit says of its app in Procfile, shipit.yml and app.json, as one value. Knows no language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from receiver.errors import Rejected
from receiver.manifest import app_json, aptfile, checks_file, command, env_example, env_file, procfile, shipit_yml
from receiver.manifest.app_json import AppJson
from receiver.manifest.command import Knows
from receiver.manifest.problems import Problems, nearest
from receiver.manifest.procfile import Line, Procfile
from receiver.manifest.section import Section
from receiver.manifest.shipit_yml import ProcessSettings, ShipitYml
from receiver.manifest.tree import Tree, subtree
from receiver.model import WEB, Check, CheckKind, Listen, ProcessType
from receiver.names import ConfigKey, Domain, TypeName
from receiver.schedule import Schedule, schedule
from receiver.serving import Serving


@dataclass(frozen=True)
class Manifest:
    """`runtimes`: for each runtime of the app what shows it, and `versions` the wanted versions, by the runtime's name.
    `root`: only this directory of the commit is the app ("" = all of it). `static`: nginx serves this directory of the
    release, and there is no web process ("" = none, "." = all of it). `formation`: the counts before anybody scales; it
    has every process type that is not scheduled. `keep`: 0 = the server's, `warm`: None = the server's. `env`: defaults
    of config vars; `required`: those that must be set, with their places; `secrets`: those that are made if they are
    not set. `example`: the file and the config vars that its authors want set. `storage`: which paths of the app's data
    are mounted at which paths of the release. `apt`: the Debian packages that it needs on the server. `serving`: how
    nginx serves it. `sections`: what the release keeps of each further section. `notices`: lines for the pusher."""

    processes: tuple[ProcessType, ...]
    formation: tuple[tuple[TypeName, int], ...]
    release_command: str = ""
    domains: tuple[Domain, ...] = ()
    build_config: tuple[ConfigKey, ...] = ()
    build_command: str = ""
    root: str = ""
    static: str = ""
    runtimes: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[ConfigKey, str], ...] = ()
    required: tuple[tuple[ConfigKey, str], ...] = ()
    secrets: tuple[ConfigKey, ...] = ()
    storage: tuple[tuple[str, str], ...] = ()
    apt: tuple[str, ...] = ()
    example: tuple[str, tuple[ConfigKey, ...]] = ("", ())
    keep: int = 0
    warm: int | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    serving: Serving = field(default_factory=Serving)
    notices: tuple[str, ...] = ()

    def version(self, runtime: str) -> str:
        """The wanted version of a runtime, "" = any."""
        return dict(self.versions).get(runtime, "")


@dataclass(frozen=True)
class Pushed:
    """What the files of an app say, before the runtimes are asked. `tree` is the app's own, below `build.root`.
    `defaults` are config vars from Piku's file ENV, `apt` the packages of an Aptfile; `notices` say what in these files
    has no effect."""

    tree: Tree
    settings: ShipitYml
    procfile: Procfile | None
    app_json: AppJson
    defaults: tuple[tuple[ConfigKey, str], ...] = ()
    apt: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def read_files(tree: Tree, sections: Sequence[Section] = (), root: str = "") -> Pushed:
    """Read the three files of a commit; raises Rejected with every mistake, each with file and line.

    `sections` are the further sections that shipit.yml may have (from ops/all.py), `root` is the app's directory if
    shipit.yml names none.
    """
    said = shipit_yml.read(tree, sections)
    said = replace(said, root=said.root or root)
    app = subtree(tree, said.root)
    problems = Problems()
    if said.root and not app.files():
        problems.add(shipit_yml.NAME, f"build.root names {said.root!r}, which is not a directory of this commit.")
    lines = procfile.read(app, problems)
    said_here = procfile.of_commands(said.run, problems)
    if lines and said_here:
        problems.add(said.run[0][2], "Both the Procfile and `run` say what runs.", "Keep one of the two.")
    lines = lines or said_here
    dokku = app_json.read(app, problems)
    defaults = env_file.read(app, problems)
    packages, told = aptfile.read(app, problems)
    problems.check()
    check, more = checks_file.read(app)
    if check and WEB not in dokku.checks and not said.static and (lines is None or WEB in lines.processes):
        dokku = replace(dokku, checks={**dokku.checks, WEB: (check, checks_file.NAME)})
    return Pushed(app, said, lines, dokku, defaults, packages, (*told, *more))


def complete(
    pushed: Pushed,
    lines: Procfile,
    static: str,
    knows: Knows,
    problems: Problems,
    notices: Sequence[str],
    sections: Sequence[Section] = (),
) -> Manifest:
    """The manifest of an app that runs `lines`, from its Procfile or suggested; it lacks what the runtimes know.

    Raises Rejected with every mistake, including those in `problems`. `notices` are added to those of app.json;
    `sections` are those that the files were read with.
    """
    said, dokku = pushed.settings, pushed.app_json
    _check_types(lines, said, dokku, problems)
    if static and WEB in lines.processes:
        problems.add(lines.processes[WEB].where, f"Both web and the static directory {static!r} would answer requests.",
                     "Keep one: the line of web, or `static` in shipit.yml.")  # fmt: skip
    processes = tuple(_process(kind, line, said, dokku, knows, problems) for kind, line in lines.processes.items())
    processes += tuple(_crons(lines, dokku, problems))
    asked = tuple(_of_sections(sections, said, [process.type for process in processes], problems))
    problems.check()
    formation = tuple((one.type, _count(one.type, said, dokku)) for one in processes if not one.schedule)
    told = [*pushed.notices, *dokku.notices, *notices]
    env = tuple({**dict(pushed.defaults), **dict(dokku.env), **dict(said.env)}.items())
    if formation and not static and not any(count for _, count in formation):
        told.append(f"No process runs until you scale one: {formation[0][0]}=1 (only web starts by itself).")
    return Manifest(
        processes=(*processes, *asked),
        formation=(*formation, *((one.type, 1) for one in asked if not one.schedule)),
        release_command=_release_command(lines.release, said, dokku),
        domains=said.domains,
        build_config=said.build_config,
        build_command=_build_command(lines, said),
        root=said.root,
        static=static,
        env=env,
        required=tuple((key, where) for key, where in dokku.required if key not in dict(env)),
        secrets=dokku.secrets,
        storage=said.storage,
        apt=tuple(dict.fromkeys((*said.apt, *pushed.apt))),
        example=env_example.read(pushed.tree),
        keep=said.keep,
        warm=said.warm,
        sections=said.sections,
        serving=said.serving,
        notices=tuple(told),
    )


def _build_command(lines: Procfile, said: ShipitYml) -> str:
    """The build command; Piku's preflight comes before everything else of the app's own."""
    before = lines.preflight.command if lines.preflight else ""
    return f"(\n{before}\n) &&\n{said.build_command}" if before and said.build_command else before or said.build_command


def _check_types(lines: Procfile, said: ShipitYml, dokku: AppJson, problems: Problems) -> None:
    """Every process type that shipit.yml or app.json speaks of must have a line in the Procfile."""
    spoken: list[tuple[str, str]] = [(kind, settings.where) for kind, settings in said.processes.items()]
    spoken += [(kind, where) for kind, (_, where) in [*dokku.counts.items(), *dokku.checks.items()]]
    for kind, where in spoken:
        if kind not in lines.processes:
            message = f"the Procfile has no line for {kind!r}.{nearest(kind, lines.processes)}"
            problems.add(where, message, f"It has: {', '.join(lines.processes)}")


def _process(
    kind: TypeName, line: Line, said: ShipitYml, dokku: AppJson, knows: Knows, problems: Problems
) -> ProcessType:
    settings = said.processes.get(kind, ProcessSettings(line.where))
    server = knows(line.command)
    listen = settings.listen or (command.listen_mode(line.command, server) if kind == WEB else Listen.NONE)
    check = _check(kind, listen, settings, dokku.checks, problems, server.patience if server else Check.timeout)
    if kind == WEB and settings.listen is None:
        _check_address(line, server, problems)
    when = settings.schedule or _cron(line, problems)
    if when and (kind == WEB or settings.count is not None or settings.listen or settings.check):
        problems.add(settings.where, f"{kind} runs by the clock: no requests come to it, and it is not scaled or checked.",
                     "Keep `schedule`, or count, listen and healthcheck.")  # fmt: skip
    return ProcessType(kind, line.command, listen, check, settings.drain, settings.limits, when)


def _cron(line: Line, problems: Problems) -> Schedule | None:
    try:
        return schedule(line.cron) if line.cron else None
    except Rejected as error:
        problems.add(line.where, error.message, error.hint)
        return None


def _crons(lines: Procfile, dokku: AppJson, problems: Problems) -> Iterator[ProcessType]:
    """What app.json lets run by the clock: process types of their own, `cron-1` the first."""
    for number, (line, when, where) in enumerate(dokku.crons, 1):
        kind = TypeName(f"cron-{number}")
        if kind in lines.processes:
            problems.add(where, f"it would be {kind}, which the Procfile has, too.")
        yield ProcessType(kind, line, Listen.NONE, Check(CheckKind.UPTIME), schedule=when)


def _of_sections(
    sections: Sequence[Section], said: ShipitYml, own: Sequence[TypeName], problems: Problems
) -> Iterator[ProcessType]:
    """What further sections of shipit.yml have run."""
    for section in sections:
        for process in section.processes(said.sections[section.key]) if section.key in said.sections else ():
            if process.type in own:
                problems.add(f"{shipit_yml.NAME}: {section.key}", f"{process.type} would run, which the app has, too.",
                             f"Give your own {process.type} another name.")  # fmt: skip
            yield process


def _check(
    kind: TypeName,
    listen: Listen,
    settings: ProcessSettings,
    dokku: Mapping[str, tuple[Check, str]],
    problems: Problems,
    timeout: int,
) -> Check:
    default = Check(CheckKind.HTTP if kind == WEB and listen is not Listen.NONE else CheckKind.UPTIME, timeout=timeout)
    base, where = dokku.get(kind, (default, ""))
    if "kind" in settings.check:
        # Another kind of check does not take over app.json's path, which means nothing to it.
        base, where = Check(settings.check["kind"], timeout=timeout), settings.check_where
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


def _check_address(line: Line, server: command.Server | None, problems: Problems) -> None:
    """Refuse a server that listens on a fixed address: no request would reach it."""
    if server and server.address and "$" not in line.command:
        problems.add(line.where, f"{server.name} listens on {server.address}, but requests come to $PORT or $SOCKET.",
                     f"Leave the address out of the command: shipit tells {server.name} where to listen.")  # fmt: skip


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
