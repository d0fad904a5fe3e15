"""What a Node.js project makes, pages or a server: the script that builds it, the directory of pages, the server's
command.

Works from two tables; a program that is not in them needs `static` in shipit.yml, or a Procfile. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from receiver.manifest import Tree
from receiver.runtimes.node.package import LIFECYCLE, script, table

# Development servers: the build's result is served better by nginx, or by its own server.
DEVELOPER = re.compile(r"\b(?:react-scripts start|vite(?! preview)|vue-cli-service serve|ng serve|astro dev|parcel|"
                       r"webpack(?:-dev-server| serve)|next dev|nodemon|ts-node-dev|gatsby develop|nuxt dev|remix dev|"
                       r"docusaurus start|hexo server|tsx watch|eleventy|gulp|grunt|vitepress dev|vuepress dev|"
                       r"react-router dev|hugo server|nest start|nx serve|nuxi dev)\b|^ng start|--serve\b|--watch\b|"
                       r"^(?:astro|gatsby|next|nuxt|nuxi|vitepress|vuepress|hexo s)$")  # fmt: skip


@dataclass(frozen=True)
class Pages:
    """A program that makes pages. `program`: its package; `called`: how a script calls it (`at`: the directory
    argument); `where`: the directory of its pages. `config`: files that may name another directory, by `key`. `only`:
    it makes pages only if one of these files matches this; otherwise it makes a server."""

    program: str
    called: str
    where: str
    config: tuple[str, ...] = ()
    key: str = "outDir"
    only: str = ""


def _files(name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{ending}" for ending in ("js", "mjs", "cjs", "ts", "mts"))


_AT = r"(?:\s+(?P<at>(?!-)[\w./-]+))?"
_EXPORT = r"""output\s*:\s*['"]export['"]"""
PAGES = (
    Pages("react-scripts", r"\breact-scripts build\b", "build"),
    Pages("@vue/cli-service", r"\bvue-cli-service build\b", "dist", _files("vue.config"), "outputDir"),
    Pages("astro", r"\bastro build\b", "dist", _files("astro.config")),
    Pages("parcel", r"\bparcel build\b", "dist"),
    Pages("@11ty/eleventy", r"\beleventy\b", "_site", (".eleventy.js", *_files("eleventy.config")), "output"),
    Pages("@docusaurus/core", r"\bdocusaurus build\b", "build"),
    Pages("gatsby", r"\bgatsby build\b", "public"),
    Pages("vitepress", rf"\bvitepress build\b{_AT}", "{at}/.vitepress/dist"),
    Pages("vuepress", rf"\bvuepress build\b{_AT}", "{at}/.vuepress/dist"),
    Pages("hexo", r"\bhexo (?:generate|g)\b", "public", ("_config.yml",), "public_dir"),
    Pages("hugo-extended", r"\bhugo\b", "public"), Pages("hugo-bin", r"\bhugo\b", "public"),
    Pages("@sveltejs/adapter-static", r"\bvite build\b", "build", _files("svelte.config"), "pages"),
    Pages("next", r"\bnext build\b", "out", _files("next.config"), "distDir", only=_EXPORT),
    Pages("nuxt", r"\bnux[ti] generate\b", ".output/public"),
    Pages("@react-router/dev", r"\breact-router build\b", "build/client", _files("react-router.config"), "-",
          only=r"\bssr\s*:\s*false\b"),
    Pages("@angular/cli", r"\bng build\b", "dist"),
    Pages("vite", r"\bvite build\b", "dist", _files("vite.config")),
)  # fmt: skip
# With one of these packages the build makes a server, not pages, unless a row above has `only` for it or it is in
# _APART.
_SERVED = re.compile(r"@sveltejs/kit|@astrojs/(?:node|vercel|netlify|cloudflare)|@react-router/.+|@remix-run/.+|@solidjs/start|"
                     r"nuxt|next|express|fastify|koa|@hapi/hapi|@nestjs/core")  # fmt: skip
_APART = frozenset({"@sveltejs/adapter-static", "next", "nuxt", "@react-router/dev"})
# Names of build scripts, if there is none called `build`.
_BUILDS = ("docs:build", "build:docs", "docs", "generate", "export", "site:build", "build:site", "build:prod", "prod",
           "production", "dist")  # fmt: skip
# SvelteKit refuses forms from another origin, and takes its own origin to be https.
_KIT = "PROTOCOL_HEADER=x-forwarded-proto node build"
# Packages whose build makes a server, or that have a server program, and the command to start it.
SERVERS = (
    ("nuxt", "node .output/server/index.mjs"), ("@sveltejs/adapter-node", _KIT), ("@sveltejs/adapter-auto", _KIT),
    ("@astrojs/node", "HOST=127.0.0.1 node dist/server/entry.mjs"), ("next", "next start -H 127.0.0.1"),
    ("@remix-run/serve", "remix-serve build/server/index.js"),
    ("@react-router/serve", "react-router-serve build/server/index.js"), ("@nestjs/core", "node dist/main"),
    ("@solidjs/start", "node .output/server/index.mjs"),
)  # fmt: skip
# With one of these packages the program at `main`, or one with a usual name, is a server.
_FRAMEWORKS = frozenset({"express", "koa", "fastify", "@hapi/hapi", "restify", "polka", "hono", "h3", "connect", "micro",
                         "socket.io", "ws", "@feathersjs/express", "json-server", "http-server", "sails"})  # fmt: skip
_MAINS = ("server.js", "app.js", "index.js", "main.js", "server.mjs", "index.mjs", "app.mjs", "src/server.js", "src/index.js",
          "src/app.js", "src/main.js", "server/index.js", "server/server.js", "bin/www")  # fmt: skip
# A start script that builds first: the build has been done, and a release is read-only.
_BUILDS_FIRST = re.compile(r"^(?:(?:npm|pnpm) run|yarn(?: run)?) build\s*&&\s*")
_STARTS = ("start:prod", "start:production", "serve:prod", "prod")
_SVELTE = ("@sveltejs/adapter-node", "@sveltejs/adapter-static", "@sveltejs/adapter-auto")
_HOSTED = re.compile(r"@astrojs/(?:vercel|netlify|cloudflare)")
_OPTION = re.compile(r"(?:--(?:out(?:-?dir)?|output|dist-dir|outDir|dest)[ =]|\s-[do] )['\"]?([\w./-]+)")
_PLACE = re.compile(r"(?!\.\./|/)(?:\./)?([\w.-]+(?:/[\w.-]+)*)/?")


def build_named(data: Mapping[str, Any]) -> str:
    """The script with the name of a build script: Heroku's, else `build`; "" if there is none."""
    return next((name for name in ("heroku-postbuild", "build") if script(data, name)), "")


def around_start(data: Mapping[str, Any]) -> bool:
    """Whether npm has to start the server, because of scripts around the start that the build has not run already."""
    before = (
        _BUILDS_FIRST.sub("", f"{script(data, 'prestart')} &&")
        if build_named(data) == "build"
        else script(data, "prestart")
    )
    return bool(before.strip(" &") or script(data, "poststart")) or "$npm_" in script(data, "start")


def build_script(data: Mapping[str, Any]) -> str:
    """The name of the build script: Heroku's, else `build`; else, if no server is started, a script that calls a
    program that makes pages. "" if there is none."""
    if name := build_named(data):
        return name
    if start_script(data):
        return ""
    calls = [row.called for row in PAGES]
    return next((name for name in _BUILDS if any(re.search(call, script(data, name)) for call in calls)), "")


def needs_all(data: Mapping[str, Any]) -> bool:
    """Whether something runs that may need the devDependencies: a build, or the project's own install scripts."""
    return bool(build_script(data)) or any(script(data, name) for name in LIFECYCLE)


def start_script(data: Mapping[str, Any]) -> str:
    """The script `start`, "" if there is none, or if it is for a developer's machine."""
    said = _BUILDS_FIRST.sub("", script(data, "start")) if build_named(data) == "build" else script(data, "start")
    other = re.fullmatch(r"(?:npm run|yarn(?: run)?|pnpm(?: run)?) ([\w:.-]+)", said)
    return "" if DEVELOPER.search(said) or (other and DEVELOPER.search(script(data, other[1]))) else said


def needs(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**table(data, "dependencies"), **table(data, "devDependencies")}


def pages(tree: Tree, data: Mapping[str, Any]) -> tuple[str, str] | None:
    """The program that makes pages in the build, and their directory: by the build script, else by the installed
    packages. None if the build makes no pages, or a server."""
    build, wanted = build_script(data), needs(data)
    if not build:
        return None
    said = script(data, build)
    server = any(_SERVED.fullmatch(name) for name in wanted)
    for by_script in (True, False):
        for row in PAGES:
            call = re.search(row.called, said)
            there = row.program in wanted
            if not (call if by_script else there) or (row.program in _APART and not there):
                continue
            if (server and row.program not in _APART) or (row.only and not _configured(tree, row, row.only)):
                continue
            if row.program == "nuxt" and not call:
                continue
            return row.program, _where(tree, row, said, call)
    return None


def environment(data: Mapping[str, Any]) -> dict[str, str]:
    """Further variables for the environment of a build script."""
    # By this variable SvelteKit's adapter-auto recognises a host for Node.js servers, and uses adapter-node.
    return {"GCP_BUILDPACKS": "shipit"} if "@sveltejs/adapter-auto" in needs(data) else {}


def server(tree: Tree, data: Mapping[str, Any]) -> tuple[str, str]:
    """The command of a server without a `start` script, and the file that shows it; "" and "" if there is none."""
    if name := next((name for name in _STARTS if script(data, name) and not DEVELOPER.search(script(data, name))), ""):
        return script(data, name), f"the {name} script of package.json"
    wanted = table(data, "dependencies")
    for package, command in SERVERS:
        if package in needs(data) and (build_script(data) or package not in ("next", "nuxt")):
            return command, f"{package} in package.json"
    files = tree.files()
    if framework := next((name for name in wanted if name in _FRAMEWORKS), ""):
        main = data.get("main")
        places = [main.removeprefix("./")] if isinstance(main, str) else []
        if found := next(
            (path for path in (*places, *_MAINS) if path in files and re.fullmatch(r"[\w./-]+", path)), ""
        ):
            return f"node {found}", f"{found} and {framework} in package.json"
    return "", ""


def lacks(data: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong, and what to type, if the build makes something that only another host can serve; else "" and
    ""."""
    wanted = needs(data)
    if "@sveltejs/kit" in wanted and not any(name in wanted for name in _SVELTE):
        return ("There is no Procfile. SvelteKit builds for the host that its adapter names, and there is none for a server of one's own.",
                "npm install --save-dev @sveltejs/adapter-node, and import it in svelte.config.js in place of the other one;\n"
                "for pages without a server: @sveltejs/adapter-static")  # fmt: skip
    if other := next((name for name in wanted if _HOSTED.fullmatch(name)), ""):
        return (f"There is no Procfile. {other} has Astro build for another host.",
                "npx astro add node  (a server), or leave the adapter out (pages)")  # fmt: skip
    return "", ""


def _where(tree: Tree, row: Pages, said: str, call: re.Match[str] | None) -> str:
    """The directory of the pages: from the script, else from the configuration, else the program's default."""
    after = said[call.end() :] if call else ""
    option = _OPTION.search(re.split(r"&&|\|\||;", after)[0])
    named = option[1] if option else _configured(tree, row, rf"\b{row.key}['\"]?\s*:\s*['\"]?([\w./-]+)")
    if named and (place := _PLACE.fullmatch(named)):
        return place[1]
    if row.program == "@angular/cli":
        return _angular(tree)
    at = (call.groupdict().get("at") or "" if call else "").removeprefix("./").strip("/")
    return row.where.format(at=at).lstrip("/") if at != "." else row.where.format(at="").lstrip("/")


def _configured(tree: Tree, row: Pages, pattern: str) -> str:
    """The match of a pattern in a row's configuration: its group, or the whole match."""
    for file in row.config:
        raw = tree.read(file)
        if raw and (found := re.search(pattern, re.sub(r"(?m)^[ \t]*//.*$", "", raw.decode(errors="replace")))):
            return str(found[found.re.groups])
    return ""


def _angular(tree: Tree) -> str:
    """The directory of the pages in angular.json; since Angular 17 they are below it, in `browser`."""
    try:
        projects = json.loads(tree.read("angular.json") or b"{}")["projects"]
        name, one = next(iter(projects.items()))
        targets = one.get("architect") or one["targets"]
        build = targets["build"]
        path = build["options"].get("outputPath", f"dist/{name}")
        if isinstance(path, dict):
            base, below = path["base"], path.get("browser", "browser")
        else:
            base, below = path, "browser" if str(build.get("builder")).endswith(":application") else ""
        place = _PLACE.fullmatch(f"{base.rstrip('/')}/{below}".rstrip("/"))
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        return "dist"
    return place[1] if place else "dist"
