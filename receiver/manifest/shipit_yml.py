"""shipit.yml: settings that a Procfile cannot express. Checked by its schema, then turned into values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from receiver import names, serving
from receiver.errors import Rejected
from receiver.manifest.problems import Problems
from receiver.manifest.section import Said, Section
from receiver.manifest.tree import Tree
from receiver.model import WEB, CheckKind, Limits, Listen
from receiver.names import ConfigKey, Domain
from receiver.schedule import Schedule, schedule
from receiver.serving import Serving

if TYPE_CHECKING:
    from receiver.manifest.document import Document

NAME = "shipit.yml"


@dataclass(frozen=True)
class ProcessSettings:
    """What shipit.yml says of one process type; `check` has only the fields of `model.Check` that it names."""

    where: str
    count: int | None = None
    listen: Listen | None = None
    check: Mapping[str, Any] = field(default_factory=dict)
    check_where: str = ""
    drain: int = 30
    limits: Limits = field(default_factory=Limits)
    schedule: Schedule | None = None


@dataclass(frozen=True)
class ShipitYml:
    """Empty, 0 and None mean: not set. `warm` is in seconds, and 0 there means: never. `versions`: of runtimes, by
    their names. `static`: the directory that nginx serves. `run`: process types in place of a Procfile's, each with its
    command and its place. `apt`: Debian packages. `sections`: for each further section, by its key, what the release
    keeps."""

    processes: Mapping[str, ProcessSettings] = field(default_factory=dict)
    release: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    static: str = ""
    domains: tuple[Domain, ...] = ()
    build_config: tuple[ConfigKey, ...] = ()
    build_command: str = ""
    dockerfile: str = ""
    root: str = ""
    env: tuple[tuple[ConfigKey, str], ...] = ()
    storage: tuple[tuple[str, str], ...] = ()
    run: tuple[tuple[str, str, str], ...] = ()
    apt: tuple[str, ...] = ()
    keep: int = 0
    warm: int | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    serving: Serving = field(default_factory=Serving)
    artifact: ArtifactSettings = field(default_factory=lambda: ArtifactSettings())


@dataclass(frozen=True)
class ArtifactSettings:
    """The files of a directory to ship (client/files.py), as patterns of gitignore(5). `tracked`: git's files, and new
    ones that git does not ignore; `include` adds to them, even ignored files; `exclude` removes from both."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tracked: bool = True


def read(tree: Tree, sections: Sequence[Section] = ()) -> ShipitYml:
    """Read shipit.yml of the top of a tree, or nothing if there is none; raises Rejected with every mistake."""
    problems = Problems()
    files = tree.files()
    for other in ("shipit.yaml", ".shipit.yml", "shipit.toml", "shipit.json"):
        if other in files:
            problems.add(other, f"The file is called {NAME}.", f"git mv {other} {NAME}")
    raw = tree.read(NAME)
    if raw is None and NAME in files:
        problems.add(NAME, "The file is larger than 64 KiB.")
    problems.check()
    return ShipitYml() if raw is None else parse(raw, sections)


def parse(raw: bytes, sections: Sequence[Section] = ()) -> ShipitYml:
    """Read the bytes of a shipit.yml; raises Rejected with every mistake."""
    from receiver.manifest import schema, yaml_document

    document = yaml_document.parse(NAME, raw)
    problems = Problems()
    schema.check(document, problems, sections)
    problems.check()
    values = _values(document, schema, problems, sections)
    problems.check()
    return values


def _values(document: Document, schema: Any, problems: Problems, sections: Sequence[Section]) -> ShipitYml:
    data = document.data
    build = data.get("build", {})
    return ShipitYml(
        processes={kind: _process(document, kind, said, problems) for kind, said in data.get("processes", {}).items()},
        release=data.get("release", ""),
        versions={key: document.texts[key,] for key in data if schema.is_version(key)},
        static=data["static"] if isinstance(data.get("static"), str) else "",
        domains=tuple(_names(document, ("domains",), data.get("domains", []), names.domain, problems)),
        build_config=tuple(_names(document, ("build", "config"), _listed(build), names.build_config, problems)),
        build_command=build.get("command", ""),
        dockerfile=build.get("dockerfile", ""),
        root=build.get("root", ""),
        env=tuple(_env(document, problems)),
        run=tuple(_run(document)),
        apt=tuple(data.get("apt", [])),
        storage=tuple(_names(document, ("storage",), data.get("storage", []), names.mount, problems)),
        keep=data.get("keep", 0),
        warm=data.get("warm"),
        sections=_kept(document, problems, sections),
        serving=_serving(document, problems),
        artifact=_artifact(data.get("artifact", {})),
    )


def _run(document: Document) -> list[tuple[str, str, str]]:
    """Process type, command and place of each; a single command is that of web."""
    said = document.data.get("run", {})
    if isinstance(said, str):
        return [(WEB, said, document.at(("run",)))]
    return [(kind, command, document.at(("run", kind))) for kind, command in said.items()]


def _listed(build: dict[str, Any]) -> list[str]:
    wanted = build.get("config", [])
    return [names.EVERY] if wanted == "all" else list(wanted)


def _artifact(said: dict[str, Any]) -> ArtifactSettings:
    return ArtifactSettings(
        tuple(said.get("include", ())), tuple(said.get("exclude", ())), bool(said.get("tracked", True))
    )


def _serving(document: Document, problems: Problems) -> Serving:
    said = {key: value for key, value in document.data.get("proxy", {}).items() if not key.startswith("x-")}
    headers = []
    for name in said.pop("headers", {}):
        try:
            headers.append(serving.header(name, document.texts[("proxy", "headers", name)]))
        except Rejected as error:
            problems.add(document.at(("proxy", "headers", name)), error.message, error.hint)
    redirects = _pairs(document, ("proxy", "redirects"), said.pop("redirects", {}), serving.redirect, problems)
    assets = _pairs(document, ("static",), document.data.get("static", {}), serving.asset, problems)
    if twice := serving.overlap([prefix for prefix, _ in assets], [source for source, _ in redirects]):
        problems.add(document.at(("static",)), f"{twice} is served, and something else is to answer there, too.",
                     "Keep one of the two.")  # fmt: skip
    allow = _names(document, ("proxy", "allow"), said.pop("allow", []), serving.network, problems)
    canonical = said.pop("canonical", None)
    if canonical is not None:
        found = _names(document, ("proxy",), [canonical], serving.canonical, problems)
        said["canonical"] = found[0] if found else None
    if "body" in said:
        said["body"] = _mebibytes(said["body"])
    if "header" in said:
        said["header"] = int(said["header"][:-1])
    return Serving(**said, headers=tuple(headers), assets=assets, redirects=redirects, allow=tuple(allow))


def _pairs(
    document: Document,
    path: tuple[str, ...],
    said: Any,
    parse: Callable[[str, str], tuple[str, str]],
    problems: Problems,
) -> tuple[tuple[str, str], ...]:
    """The pairs of a mapping that `parse` accepts; `static` may also be text, which is no mapping."""
    found = []
    for key in said if isinstance(said, dict) else ():
        try:
            found.append(parse(key, said[key]))
        except Rejected as error:
            problems.add(document.at((*path, key)), error.message, error.hint)
    return tuple(found)


def _kept(document: Document, problems: Problems, sections: Sequence[Section]) -> dict[str, Any]:
    said = [section for section in sections if section.key in document.data]
    found = {section.key: section.read(Said(section.key, document, problems)) for section in said}
    return {key: kept for key, kept in found.items() if kept is not None}


def _process(document: Document, kind: str, said: dict[str, Any], problems: Problems) -> ProcessSettings:
    path = ("processes", kind)
    check = {key: value for key, value in said.get("healthcheck", {}).items() if not key.startswith("x-")}
    kinds = {"path": CheckKind.HTTP, "tcp": CheckKind.TCP, "command": CheckKind.COMMAND, "notify": CheckKind.NOTIFY}
    for key, value in kinds.items():
        if key in check:
            check["kind"] = value
    if "settle" in check:
        check["kind"] = CheckKind.UPTIME
    check.pop("tcp", None)
    check.pop("notify", None)
    return ProcessSettings(
        where=document.at(path),
        count=said.get("count"),
        listen=Listen(said["listen"]) if "listen" in said else None,
        check=check,
        check_where=document.at((*path, "healthcheck")),
        drain=said.get("drain", 30),
        limits=Limits(
            memory=_mebibytes(said.get("memory", "0M")), cpu=int(said.get("cpu", "0%")[:-1]), tasks=said.get("tasks", 0)
        ),
        schedule=_schedule(document, (*path, "schedule"), said["schedule"], problems) if "schedule" in said else None,
    )


def _schedule(document: Document, path: tuple[str, ...], said: Any, problems: Problems) -> Schedule | None:
    given = dict(said) if isinstance(said, dict) else {"at": said}
    try:
        return schedule(**{key: value for key, value in given.items() if key != "at"}, said=given["at"])
    except Rejected as error:
        problems.add(document.at(path), error.message, error.hint)
        return None


def _mebibytes(text: str) -> int:
    return int(text[:-1]) * (1024 if text.endswith("G") else 1)


def _names(document: Document, path: tuple[str, ...], texts: list[str], parse: Any, problems: Problems) -> list[Any]:
    parsed = []
    for i, text in enumerate(texts):
        try:
            parsed.append(parse(text))
        except Rejected as error:
            problems.add(document.at((*path, i)), error.message, error.hint)
    return parsed


def _env(document: Document, problems: Problems) -> list[tuple[ConfigKey, str]]:
    pairs = []
    for key in document.data.get("env", {}):
        try:
            pairs.append((names.config_key(key), document.texts[("env", key)]))
        except Rejected as error:
            problems.add(document.at(("env", key)), error.message, error.hint)
    return pairs
