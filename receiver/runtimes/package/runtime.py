"""A Debian or RPM package as an app: unpacked into the release, not installed; its maintainer scripts never run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping

from receiver.errors import Rejected
from receiver.manifest import Problems, Pushed, Tree
from receiver.model import WEB, ProcessEnv
from receiver.names import type_name
from receiver.runtimes import packed
from receiver.runtimes.base import BuildPlan, Evidence, Made, Part, Project, Runtime, Slug, Step, Suggestion
from receiver.runtimes.package import deb, rpm, unit
from receiver.runtimes.python import module

DIRECTORY = "package"
# Changed whenever the steps make a different directory from the same file.
RECIPE = 2
# All files belong to the build's user, whatever the package says; no set-user-id bit, no device.
_UNPACK = """\
mkdir "$2" && dpkg-deb --fsys-tarfile "$1" >.unpacked.tar || exit
tar --extract --file=.unpacked.tar --directory="$2" --no-same-owner --no-same-permissions --no-acls --no-xattrs
code=$?; rm -f .unpacked.tar; exit $code
"""
# Processes cannot write bytecode, so each start would compile all imports. Files that are not valid for this server's
# Python are skipped.
_COMPILE = '/usr/bin/python3 -I -m compileall -qq -j 0 "$PWD/$1" >/dev/null 2>&1 || :'


FORMATS: Mapping[str, Callable[[bytes], packed.Packed | None]] = {".deb": deb.of_bytes, ".rpm": rpm.of_bytes}


def at_top(tree: Tree) -> list[str]:
    """The packages at the top of a tree."""
    return sorted(path for ending in FORMATS for path in packed.at_top(tree, ending))


class Package(Runtime):
    """A tree with one .deb or .rpm at its top."""

    name = "deb"
    makes = (DIRECTORY,)

    def finds(self, pushed: Pushed) -> Evidence | None:
        found = at_top(pushed.tree)
        return Evidence(found[0]) if found else None

    def check(self, pushed: Pushed, problems: Problems) -> None:
        if len(found := at_top(pushed.tree)) > 1:
            problems.add(
                found[1], f"There are several packages at the top: {', '.join(found[:4])}.", "Keep one of them."
            )

    def plan(self, project: Project) -> BuildPlan:
        file = at_top(project.tree)[0]
        facts = f"{RECIPE} {project.tree.files()[file]}"
        unpack = Step(f"Unpacking {file}", ("/bin/sh", "-c", _UNPACK, "sh", file, DIRECTORY))
        kind = "deb"
        if file.endswith(".rpm"):
            kind = "rpm"
            argv = module.argv(project, "receiver.runtimes.package.unpack", file, DIRECTORY)
            unpack = Step(f"Unpacking {file}", argv)
        steps = [unpack]
        if b".py\n" in _texts(project.tree, file).get("files", b""):
            steps.append(Step("Compiling its Python modules", ("/bin/sh", "-c", _COMPILE, "sh", DIRECTORY)))
        made = Made(DIRECTORY, hashlib.sha256(facts.encode()).hexdigest(), tuple(steps))
        argv = module.argv(project, "receiver.runtimes.package.missing", file)
        return BuildPlan(f"{kind} {file}", {}, (made,), (Step(f"Looking for what {file} needs", argv),))

    def process(self, project: Project) -> ProcessEnv:
        path = tuple(
            f"{DIRECTORY}/{place}" for place in ("usr/local/bin", "usr/bin", "bin", "usr/sbin", "sbin", "usr/games")
        )
        return ProcessEnv(path=path, variables=(("PACKAGE", f"$SLUG/{DIRECTORY}"),))

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        file = at_top(pushed.tree)[0]
        texts = _texts(pushed.tree, file)
        files = frozenset(texts.get("files", b"").decode(errors="replace").splitlines())
        name = packed.called(file)
        found = {}
        for path, raw in sorted(texts.items()):
            kind = _process_type(path, name)
            if kind and (line := unit.command(raw.decode(errors="replace"), files)):
                found[kind] = line
        if len(found) == 1:
            found = {WEB: next(iter(found.values()))}
        if WEB in found:
            others = tuple((kind, line) for kind, line in found.items() if kind != WEB)
            told = f"No Procfile: the unit in {file} says how it is started, so `web: {found[WEB]}`."
            return Suggestion(told, web=found[WEB], others=others)
        if found:
            raise Rejected(
                f"There is no Procfile, and {file} brings several units: {', '.join(found)}.",
                hint=f"Send a tree with the package and a Procfile beside it:\nweb: {next(iter(found.values()))}",
            )
        return None

    def parts(self, slug: Slug) -> Iterator[Part]:
        for file in slug.names(packed.BESIDE):
            if file.endswith(".deb"):
                fields = deb.fields(slug.read(f"{packed.BESIDE}/{file}/control", packed.LONGEST))
                if fields:
                    yield Part("deb", fields["Package"], fields["Version"], more=(("arch", fields["Architecture"]),))
            elif file.endswith(".rpm"):
                said = slug.read(f"{packed.BESIDE}/{file}/header", packed.LONGEST).decode(errors="replace")
                found = dict(re.findall(r"^(Name|Version|Architecture|License): (\S.*)$", said, re.MULTILINE))
                if {"Name", "Version", "Architecture"} <= found.keys():
                    arch = (("arch", found["Architecture"]),)
                    yield Part("rpm", found["Name"], found["Version"], found.get("License", ""), more=arch)

    def example(self, pushed: Pushed) -> str:
        return "web: a-program-of-the-package --port $PORT"


def _process_type(path: str, name: str) -> str:
    """The name of the process type for the unit at `path` of the package `name`; "" if it is no unit, or a template."""
    if not path.startswith("units/") or "@" in path:
        return ""
    kind = path.removeprefix("units/").removesuffix(".service")
    kind = WEB if kind == name else kind.removeprefix(f"{name}-")
    try:
        return type_name(re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-"))
    except Rejected:
        return ""


def _texts(tree: Tree, file: str) -> Mapping[str, bytes]:
    """The texts stored beside the package; if there are none and it is small, those read from the package."""
    if found := packed.beside(tree, file):
        return found
    raw = tree.read(file)
    said = FORMATS[file[-4:]](raw) if raw else None
    return said.beside if said else {}
