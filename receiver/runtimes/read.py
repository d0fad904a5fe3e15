"""The manifest of a commit: what its files say, and what the runtimes make of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from receiver.errors import Rejected
from receiver.manifest import Manifest, Problems, Pushed, Tree, app_json, complete, read_files, subtree
from receiver.manifest.command import Server
from receiver.manifest.procfile import Line, Procfile
from receiver.manifest.section import Section
from receiver.model import WEB
from receiver.names import pages, type_name
from receiver.runtimes import unserved
from receiver.runtimes.all import RUNTIMES
from receiver.runtimes.base import Asked, Evidence, Runtime, Suggestion

# A name that is valid for `build.root`.
DIRECTORY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
Found = list[tuple[Runtime, Evidence]]


def read_manifest(tree: Tree, sections: Sequence[Section] = (), runtimes: Sequence[Runtime] = RUNTIMES) -> Manifest:
    """Read the manifest of a commit; raises Rejected with every mistake, each with file and line.

    `sections` are the further sections that shipit.yml may have (from ops/all.py).
    """
    problems = Problems()
    _check_links(tree, ("shipit.yml",), problems)
    problems.check()
    pushed = read_files(tree, sections)
    _check_links(
        pushed.tree, ("Procfile", "app.json", *(name for runtime in runtimes for name in runtime.reads)), problems
    )
    problems.check()
    found = found_in(pushed, runtimes)
    where = []
    nowhere = all(evidence.weak for _, evidence in found) and not _runs(pushed, found)
    if nowhere and not pushed.settings.root and (root := _alone_below(pushed, runtimes)):
        where.append(
            f"Nothing at the top says what the app is, and {root}/ does: that is the app, as with this in shipit.yml:  "
            f"build: {{root: {root}}}"
        )
        pushed = read_files(tree, sections, root)
        found = found_in(pushed, runtimes)
    where.extend(_otherwise(pushed, found, runtimes))
    unused = unserved.dockerfile(pushed.tree, [runtime.name for runtime, _ in found])
    for runtime, _ in found:
        _check_tree(pushed.tree, runtime, problems)
    _check_storage(pushed, found, problems)
    problems.check()
    for runtime, _ in found:
        runtime.check(pushed, problems)
        if pushed.settings.root:
            runtime.above(tree, pushed.settings.root, problems)
    if not pushed.procfile:
        # Mistakes in the project are reported first: a suggestion for a Procfile would not help yet.
        problems.check()
    notices = [
        *where,
        *unused,
        *unserved.notices(pushed.tree),
        *(line for runtime, _ in found for line in runtime.notices(pushed)),
    ]
    if all(evidence.weak for _, evidence in found) and pushed.procfile and not pushed.settings.build_command:
        file, what = unserved.language(pushed.tree, [runtime.name for runtime in runtimes])
        if file:
            notices.append(f"{file}: {what}, which nothing builds here; write `build: {{command: …}}` into shipit.yml.")
    lines, static = _lines(pushed, found, runtimes, notices)
    manifest = complete(pushed, lines, static, _knows(pushed, runtimes), problems, notices, sections)
    versions = ((runtime.name, runtime.version(pushed)) for runtime, _ in found)
    places = {place for _, place in manifest.storage}
    own = [pair for runtime, _ in found for pair in runtime.storage(pushed) if not _meets(pair[1], places)]
    return replace(
        _answered(manifest, [runtime.asks(pushed) for runtime, _ in found]),
        storage=(*manifest.storage, *own),
        runtimes=tuple((runtime.name, evidence.what) for runtime, evidence in found),
        versions=tuple((name, version) for name, version in versions if version),
    )


def _answered(manifest: Manifest, asked: Sequence[Asked]) -> Manifest:
    """The manifest with the config vars that shipit can supply to the project's settings; the commit's own values
    win."""
    defaults = {key: value for one in asked for key, value in one.defaults}
    env = {**defaults, **dict(manifest.env)}
    secrets = [key for one in asked for key in one.secrets if key not in env]
    known = {*env, *secrets}
    return replace(
        manifest,
        env=tuple(env.items()),
        secrets=tuple(dict.fromkeys((*manifest.secrets, *secrets))),
        required=tuple((key, where) for key, where in manifest.required if key not in known),
    )


def makes_image(manifest: Manifest) -> bool:
    """Whether its releases are container images."""
    found = {name for name, _ in manifest.runtimes}
    return any(runtime.image and runtime.name in found for runtime in RUNTIMES)


def found_in(pushed: Pushed, runtimes: Sequence[Runtime]) -> Found:
    """The runtimes of a project, in the table's order; at least one."""
    every = [(runtime, evidence) for runtime in runtimes if (evidence := runtime.finds(pushed))]
    if alone := [pair for pair in every if pair[1].alone]:
        return alone[:1]
    last = [pair for pair in every if pair[1].last]
    every = [pair for pair in every if not pair[1].last]
    found = [pair for pair in every if not pair[1].weak] or every[:1]
    return last[:1] if last and not _runs(pushed, found) else found


def _otherwise(pushed: Pushed, found: Found, runtimes: Sequence[Runtime]) -> list[str]:
    """A hint for an app that runs as a last resort, such as its Dockerfile, because nothing says how else to start it:
    what to write so that its other runtimes run it."""
    if not all(evidence.last for _, evidence in found):
        return []
    others = [one for one in runtimes if (evidence := one.finds(pushed)) and not evidence.weak and not evidence.last]
    example = next(filter(None, (runtime.example(pushed) for runtime in others)), "")
    if not example:
        return []
    names = " and ".join(runtime.name for runtime in others)
    return [f"Otherwise (as {names}) it runs with a Procfile that says how to start it, for example:  {example}"]


def _alone_below(pushed: Pushed, runtimes: Sequence[Runtime]) -> str:
    """The only directory at the top that is an app and can be run as it is; "" if there is none, or several."""
    tree = pushed.tree
    said = pushed.settings
    if said.build_command or said.dockerfile or app_json.NAME in tree.files():
        return ""
    tops = sorted({path.partition("/")[0] for path in tree.files() if "/" in path})
    inside = [
        (name, replace(pushed, tree=subtree(tree, name)))
        for name in tops
        if DIRECTORY.fullmatch(name) and name not in unserved.ASIDE
    ]
    apps = [name for name, app in inside[:40] if _is_app(app, runtimes)]
    return apps[0] if len(apps) == 1 else ""


def _is_app(pushed: Pushed, runtimes: Sequence[Runtime]) -> bool:
    files = pushed.tree.files()
    if not files.keys() & {name for runtime in runtimes for name in runtime.reads}:
        return False
    found = [pair for pair in found_in(pushed, runtimes) if not pair[1].weak and not pair[1].last]
    return bool(found) and ("Procfile" in files or _runs(pushed, found))


def _runs(pushed: Pushed, found: Found) -> bool:
    """Whether the app, or one of its runtimes, says how it is started."""
    if pushed.procfile or pushed.settings.static:
        return True
    try:
        return any((said := runtime.suggests(pushed)) and not said.guess for runtime, _ in found)
    except Rejected:
        return False


def _check_tree(tree: Tree, runtime: Runtime, problems: Problems) -> None:
    for name in runtime.makes:
        inside = next((path for path in tree.files() if path == name or path.startswith(name + "/")), None)
        if inside:
            problems.add(inside, f"{name} is made by the build and cannot be in the commit.",
                         f"git rm -r --cached {name}; echo {name}/ >> .gitignore")  # fmt: skip


def _meets(place: str, others: Collection[str]) -> bool:
    return any(f"{place}/".startswith(f"{other}/") or other.startswith(f"{place}/") for other in others)


def _check_links(tree: Tree, names: Sequence[str], problems: Problems) -> None:
    """Refuse a file that matters if it is a link to a file outside the commit."""
    links, files = tree.links(), tree.files()
    for name in names:
        if name in links and name not in files:
            problems.add(name, "This is a link that leads to no file of the app.",
                         f"Commit the file itself:  git rm {name}; then add the file")  # fmt: skip


def _check_storage(pushed: Pushed, found: Found, problems: Problems) -> None:
    places = [place for _, place in pushed.settings.storage]
    makes = [name for runtime, _ in found for name in runtime.makes]
    for place in places:
        for other in [*makes, *(other for other in places if other is not place)]:
            if f"{place}/".startswith(f"{other}/"):
                what = "is made by the build" if other in makes else f"lies in {other}, or is there twice"
                problems.add("shipit.yml", f"storage: {place} {what}.", "Choose another place for it.")


def _lines(pushed: Pushed, found: Found, runtimes: Sequence[Runtime], notices: list[str]) -> tuple[Procfile, str]:
    """The lines of the Procfile, or the suggested ones in place of them; and the directory that nginx serves."""
    if pushed.procfile:
        return _without_runners(pushed.procfile, runtimes, notices), pushed.settings.static
    if pushed.settings.static:
        return Procfile({}, None), pushed.settings.static
    if suggested := _suggested(pushed, found):
        notices.append(suggested.notice)
        lines = {WEB: Line(suggested.web, 0)} if suggested.web else {}
        lines |= {type_name(kind): Line(command, 0) for kind, command in suggested.others}
        release = Line(suggested.release, 0) if suggested.release else None
        # A build script, or a generator's configuration, may name any path: nginx must get none outside the slug.
        return Procfile(lines, release), pages(suggested.static) if suggested.static else ""
    examples = (runtime.example(pushed) for runtime, _ in found)
    example = next(filter(None, examples), "web: ./server --port $PORT")
    file, what = unserved.language(pushed.tree, [runtime.name for runtime in runtimes])
    if all(evidence.weak for _, evidence in found) and file:
        raise _not_served(file, what)
    raise Rejected(
        "There is no Procfile, and the project is not recognised: no Django, Flask or FastAPI, no start script, no index.html.",
        hint=f"Write a file called Procfile that says how to start it, for example:\n{example}",
    )


def _suggested(pushed: Pushed, found: Found) -> Suggestion | None:
    """The first suggestion that is no guess; else the first guess."""
    guess: Suggestion | None = None
    for runtime, _ in found:
        if suggested := runtime.suggests(pushed):
            if not suggested.guess:
                return suggested
            guess = guess or suggested
    return guess


def _not_served(file: str, what: str) -> Rejected:
    return Rejected(
        f"{file}: this is {what}. Nothing builds it here by itself, and there is no Procfile.",
        hint="Write a Procfile with the line that starts it (web: ./server --port $PORT), and into shipit.yml what builds it\n"
        "with the programs that the server has:  build: {command: make}",
    )


def _without_runners(lines: Procfile, runtimes: Sequence[Runtime], notices: list[str]) -> Procfile:
    """The same lines without runners (such as `uv run`), whose work the build has done."""

    def plain(line: Line) -> Line:
        for runtime in runtimes:
            text, runner = runtime.command(line.command)
            if runner:
                notices.append(f"{line.where}: `{runner}` is left out; the environment is on the PATH.")
                return replace(line, command=text)
        return line

    processes = {kind: plain(line) for kind, line in lines.processes.items()}
    return replace(lines, processes=processes, release=plain(lines.release) if lines.release else None)


def _knows(pushed: Pushed, runtimes: Sequence[Runtime]) -> Callable[[str], Server | None]:
    def server(command: str) -> Server | None:
        return next((known for runtime in runtimes if (known := runtime.server(command, pushed))), None)

    return server
