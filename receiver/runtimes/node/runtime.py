"""Node.js, as a runtime: npm, pnpm and yarn by their lock files. The build is in plan.py."""

from __future__ import annotations

import re
from collections.abc import Iterator

from receiver.manifest import Pushed
from receiver.manifest.problems import reject
from receiver.model import ProcessEnv
from receiver.runtimes.base import BuildPlan, Evidence, Part, Project, Runtime, Slug, Suggestion
from receiver.runtimes.node import makes, package, versions

_RUNS = re.compile(r"(?:^|[\s;&|/])(?:node|npm|npx|pnpm|yarn)\s")

# A missing package, not a missing file: `Cannot find module 'express'`.
_LACKING = re.compile(r"Cannot find (?:module|package) '((?:@[a-z][\w.-]{0,60}/)?[a-z][\w-]{0,60})(?:/[\w./-]{0,80})?'")


class Node(Runtime):
    """Projects with a package.json that has something to install, build or start."""

    name = "node"
    makes = ("node_modules", ".node")
    reads = (package.NAME, *package.LOCKS, ".nvmrc", ".node-version")

    def finds(self, pushed: Pushed) -> Evidence | None:
        data = package.read(pushed.tree)
        if data is None:
            return None
        what = package.manager(pushed.tree, data).lock or package.NAME
        lines = pushed.procfile.processes.values() if pushed.procfile else ()
        own = makes.build_script(data) or package.script(data, "start") or package.table(data, "dependencies")
        # A package.json only for a formatter, beside another language, is no reason to install anything.
        return Evidence(what, weak=not own and not any(_RUNS.search(line.command) for line in lines))

    def plan(self, project: Project) -> BuildPlan:
        from receiver.runtimes.node import plan

        return plan.plan(project)

    def process(self, project: Project) -> ProcessEnv:
        return ProcessEnv(path=(".node/bin", "node_modules/.bin"), variables=(("NODE_ENV", "production"),))

    def version(self, pushed: Pushed) -> str:
        data = package.read(pushed.tree) or {}
        wish, where = package.wanted(pushed, data, super().version(pushed))
        if not wish:
            return ""
        try:
            found = versions.best(wish)
        except ValueError as error:
            raise reject(where, f"{wish!a} is no version of Node.js.", "Write one into .nvmrc:  22") from error
        if found is None:
            raise versions.refused(where, wish)
        return wish

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        data = package.read(pushed.tree) or {}
        if start := makes.start_script(data):
            command = "npm start" if makes.around_start(data) else start
            return Suggestion(f"No Procfile: the start script of package.json, so `web: {command}`.", web=command)
        if "server.js" in pushed.tree.files():
            return Suggestion("No Procfile: there is a server.js, so `web: node server.js`.", web="node server.js")
        if made := makes.pages(pushed.tree, data):
            program, where = made
            told = f"No Procfile: {program} builds {where}/, which nginx serves."
            return Suggestion(told, static=where)
        command, shown = makes.server(pushed.tree, data)
        if command:
            return Suggestion(f"No Procfile: {shown}, so `web: {command}`.", web=command)
        why, hint = makes.lacks(data)
        if why:
            raise reject(package.NAME, why, hint)
        return None

    def notices(self, pushed: Pushed) -> list[str]:
        data = package.read(pushed.tree) or {}
        chosen = package.manager(pushed.tree, data)
        others = package.leftover(pushed.tree, chosen)
        return [f"{chosen.lock} counts, {' and '.join(others)} does not: git rm what you do not use."] if others else []

    def advice(self, line: str) -> str:
        found = _LACKING.search(line)
        if not found:
            return ""
        return (
            f"The app uses {found[1]}, which is not among its `dependencies`; the devDependencies are there for the build "
            f"alone:  npm install {found[1]}, and commit package.json and the lock"
        )

    def parts(self, slug: Slug) -> Iterator[Part]:
        from receiver.runtimes.node import installed
        from receiver.runtimes.python.installed import distributions

        yield from installed.packages(slug)
        # Node.js itself, if it came from PyPI or npm.
        yield from distributions(slug, ".node/lib", tool=True)
        yield from installed.tool(slug, ".node/own/node_modules", "node-linux-")

    def example(self, pushed: Pushed) -> str:
        return "web: node server.js"
