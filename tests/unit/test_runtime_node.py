"""Node.js: which version, which package manager, what starts it, and what decides node_modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import FakeTree

from receiver.errors import Rejected
from receiver.manifest import Manifest
from receiver.runtimes.build import build_plan
from receiver.runtimes.node import versions
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings

LOCK = {"package-lock.json": '{"lockfileVersion": 3}'}


def package(**fields: Any) -> dict[str, str]:
    return {"package.json": json.dumps({"name": "a", "dependencies": {"ms": "2.1.3"}, **fields})}


def read(files: dict[str, str]) -> Manifest:
    return read_manifest(FakeTree(files))


def key(files: dict[str, str]) -> str:
    """The key of node_modules."""
    files = {"Procfile": "web: node x.js", **files}
    slug, tree = Path("/s/v8"), FakeTree(files)
    plan, _ = build_plan(read(files), tree, slug=slug, cache=Path("/c"), tools=Path("/t"), settings=Settings())
    return {made.name: made.key for made in plan.made}["node_modules"]


@pytest.mark.parametrize(
    ("wish", "low", "high"),
    [
        ("22", "22.0.0", "23.0.0"),
        ("20.11", "20.11.0", "20.12.0"),
        ("20.11.1", "20.11.1", "20.11.2"),
        (">=18", "24.0.0", "25.0.0"),
        (">= 18.0.0 < 21", "20.0.0", "21.0.0"),
        ("^20.9.0", "20.9.0", "21.0.0"),
        ("~20.9", "20.9.0", "20.10.0"),
        ("18.x || 20.x", "20.0.0", "21.0.0"),
        ("18 - 20", "20.0.0", "21.0.0"),
        ("<=18.19", "18.0.0", "18.20.0"),
        ("*", "24.0.0", "25.0.0"),
        (">=20.0.0 <=22.14.0", "22.0.0", "22.14.1"),
        ("^14.0.0", "14.0.0", "15.0.0"),
        ("16.20.2", "16.20.2", "16.20.3"),
        ("21", "21.0.0", "22.0.0"),
        ("<17", "16.0.0", "17.0.0"),
    ],
)
def test_of_a_range_the_best_long_term_version_is_taken(wish: str, low: str, high: str) -> None:
    found = versions.best(wish)
    assert found is not None
    assert tuple(map(versions.written, found)) == (low, high)


@given(st.text(max_size=40))
def test_any_text_is_a_range_or_no_version(text: str) -> None:
    try:
        found = versions.best(text)
    except ValueError:
        return
    assert found is None or found[0] < found[1]


def test_the_nearest_file_says_which_version() -> None:
    engines = package(engines={"node": "^18"})
    assert read({"Procfile": "web: x", **engines}).version("node") == "^18"
    assert read({"Procfile": "web: x", **engines, ".node-version": "v20.9.0\n"}).version("node") == "20.9.0"
    nvmrc = {".node-version": "20", ".nvmrc": "# ours\nlts/jod\n"}
    assert read({"Procfile": "web: x", **engines, **nvmrc}).version("node") == "22"
    assert read({"Procfile": "web: x", **engines, **nvmrc, "shipit.yml": "node: 24.1"}).version("node") == "24.1"


def environment(files: dict[str, str]) -> dict[str, str]:
    slug, tree = Path("/s/v8"), FakeTree(files)
    plan, _ = build_plan(read(files), tree, slug=slug, cache=Path("/c"), tools=Path("/t"), settings=Settings())
    return dict(plan.environment)


def test_a_program_of_hundreds_of_mib_is_fetched_for_the_app_and_not_for_its_tests() -> None:
    scripts = {"start": "node x.js", "build": "node y.js"}
    tested = environment(package(scripts=scripts, devDependencies={"cypress": "13", "puppeteer": "22"}))
    assert tested["CYPRESS_INSTALL_BINARY"] == "0" and tested["PUPPETEER_SKIP_DOWNLOAD"] == "true"
    used = environment(package(scripts=scripts, dependencies={"puppeteer": "22"}))
    # What another package brings may be what the app itself works with.
    assert not {"CYPRESS_INSTALL_BINARY", "PUPPETEER_SKIP_DOWNLOAD", "PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD"} & used.keys()


@pytest.mark.parametrize("wish", ["10", "<12", "99", "lts/unheard", "latest-ish"])
def test_a_version_that_is_not_to_be_had_is_refused_with_those_that_are(wish: str) -> None:
    with pytest.raises(Rejected) as caught:
        read({"Procfile": "web: x", **package(), ".nvmrc": wish})
    assert ".nvmrc: " in caught.value.message and ("node: 24" in caught.value.hint or ".nvmrc" in caught.value.hint)


@pytest.mark.parametrize(
    ("fields", "more", "command"),
    [
        ({"scripts": {"start": "node server.js --quiet"}}, {}, "node server.js --quiet"),
        ({"scripts": {"start": "node x.js", "prestart": "node y.js"}}, {}, "npm start"),
        ({"scripts": {"start": "next start", "build": "next build"}}, {}, "next start"),
        ({}, {"server.js": ""}, "node server.js"),
        ({"scripts": {"start": "nodemon x.js"}}, {"server.js": ""}, "node server.js"),
    ],
)
def test_without_a_procfile_the_start_script_is_web(fields: Any, more: dict[str, str], command: str) -> None:
    manifest = read({**package(**fields), **more})
    assert manifest.processes[0].command == command and "No Procfile" in manifest.notices[0]


def test_pages_that_a_bundler_builds_are_nginxs() -> None:
    vite = package(scripts={"build": "vite build", "dev": "vite"}, devDependencies={"vite": "6"})
    react = package(scripts={"build": "react-scripts build", "start": "react-scripts start"},
                    dependencies={"react-scripts": "5"})  # fmt: skip
    assert (read(vite).static, read(vite).processes) == ("dist", ())
    assert read(react).static == "build"
    # The build script says which of several it is; without its name there, what is installed does.
    both = package(scripts={"build": "react-scripts build"}, devDependencies={"vite": "6", "react-scripts": "5"})
    apart = package(
        scripts={"build": "run-s build:*"}, dependencies={"next-themes": "1"}, devDependencies={"vite": "6"}
    )
    assert (read(both).static, read(apart).static) == ("build", "dist")


@pytest.mark.parametrize("server", ["@sveltejs/kit", "@react-router/dev", "express"])
def test_what_a_bundler_builds_for_a_server_is_not_taken_for_pages(server: str) -> None:
    with pytest.raises(Rejected, match="There is no Procfile"):
        read(package(scripts={"build": "vite build"}, devDependencies={"vite": "6", server: "1"}))
    beside = package(scripts={"build": "vite build"}, devDependencies={"vite": "6"}) | {"server.js": ""}
    assert read(beside).processes[0].command == "node server.js"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"bun.lock": ""}, "bun is not served here"),
        ({"package.json": "{"}, "package.json:1: This is not JSON"),
        ({"package.json": "[]"}, "must be an object"),
    ],
)
def test_what_cannot_be_installed_is_told(files: dict[str, str], told: str) -> None:
    with pytest.raises(Rejected) as caught:
        read({"Procfile": "web: node x.js", **package(), **files})
    assert told in caught.value.message


def test_of_two_locks_the_one_that_knows_all_of_package_json_counts() -> None:
    wants = {"Procfile": "web: node x.js", **package(dependencies={"koa": "2", "pg": "8"})}
    old = json.dumps({"packages": {"": {"dependencies": {"koa": "2"}}}})
    same = json.dumps({"packages": {"": {"dependencies": {"koa": "2", "pg": "8"}}}})
    yarn = "koa@2:\n  version 2\npg@8:\n  version 8\n"
    forgotten = read({**wants, "package-lock.json": old, "yarn.lock": yarn})
    assert "yarn.lock counts, package-lock.json does not" in forgotten.notices[0]
    assert "package-lock.json counts" in read({**wants, "package-lock.json": same, "yarn.lock": yarn}).notices[0]


def test_package_manager_decides_between_two_locks() -> None:
    files = {**package(packageManager="pnpm@9.1.0+sha512.ab"), **LOCK, "pnpm-lock.yaml": "lockfileVersion: '9.0'\n"}
    assert read({"Procfile": "web: node x.js", **files}).runtimes == (("node", "pnpm-lock.yaml"),)


def test_what_decides_node_modules_is_in_its_key_and_nothing_else_is() -> None:
    files = {**package(), **LOCK}
    assert key(files) and key({**files, "x.js": "changed", "README.md": ""}) == key(files)
    assert key({**package(version="2.0.0", scripts={"test": "x"}), **LOCK}) == key(files)
    for change in (
        {"package-lock.json": '{"lockfileVersion": 2}'}, {".nvmrc": "20"}, {".npmrc": "x=y"}, {"patches/a.patch": "-"},
        package(overrides={"a": "1"}), package(scripts={"build": "x"}),
    ):  # fmt: skip
        assert key({**files, **change}) != key(files), change


@pytest.mark.parametrize(
    "more",
    [
        package(workspaces=["packages/*"]),
        package(dependencies={"own": "file:./own"}),
        package(scripts={"postinstall": "prisma generate"}),
        {"shipit.yml": "build: {command: npm ci && npm run css}"},
    ],
)
def test_what_is_made_of_more_than_the_lock_is_each_releases_own(more: dict[str, str]) -> None:
    assert key({**package(), **LOCK, **more}) == ""


def test_git_hooks_are_no_reason_to_install_each_time() -> None:
    assert key({**package(scripts={"prepare": "husky || true"}), **LOCK})


@pytest.mark.parametrize(
    ("script", "needs", "files", "where"),
    [
        ("vitepress build docs", "vitepress", {}, "docs/.vitepress/dist"),
        ("vitepress build", "vitepress", {}, ".vitepress/dist"),
        ("vuepress build src", "vuepress", {}, "src/.vuepress/dist"),
        ("hexo generate", "hexo", {"_config.yml": "public_dir: out\n"}, "out"),
        ("next build", "next", {"next.config.js": "module.exports = { output: 'export' }"}, "out"),
        ("nuxt generate", "nuxt", {}, ".output/public"),
        ("vite build", "@sveltejs/adapter-static", {}, "build"),
        ("vite build --outDir www", "vite", {}, "www"),
        ("vite build", "vite", {"vite.config.ts": "build: { outDir: 'site/out' }"}, "site/out"),
        ("vite build", "vite", {"vite.config.ts": "build: { outDir: '../out' }"}, "dist"),
        ("eleventy --output=public", "@11ty/eleventy", {}, "public"),
        ("docusaurus build", "@docusaurus/core", {}, "build"),
        ("ng build", "@angular/cli", {"angular.json": json.dumps(
            {"projects": {"shop": {"architect": {"build": {"builder": "@angular/build:application", "options": {}}}}}})},
         "dist/shop/browser"),
    ],
)  # fmt: skip
def test_pages_are_where_the_script_or_the_configuration_says(
    script: str, needs: str, files: dict[str, str], where: str
) -> None:
    manifest = read({**package(scripts={"build": script}, devDependencies={needs: "1", "@sveltejs/kit": "2"}
                               if "svelte" in needs else {needs: "1"}), **files})  # fmt: skip
    assert (manifest.static, manifest.processes) == (where, ())


@pytest.mark.parametrize(
    "script",
    ["vite build --outDir a/../../../../../var/www/html", "vite build --outDir ./..", "vitepress build ../../x",
     "vitepress build a/../.."],
)  # fmt: skip
def test_nginx_serves_no_directory_outside_of_the_release_whatever_a_build_script_says(script: str) -> None:
    with pytest.raises(Rejected, match="not a directory of the release"):
        read(package(scripts={"build": script}, devDependencies={"vite": "1", "vitepress": "1"}))


def test_a_script_of_another_name_builds_the_pages_where_nothing_else_is_to_be_served() -> None:
    manual = package(
        scripts={"docs:build": "vitepress build docs", "test": "vitest"}, devDependencies={"vitepress": "1"}
    )
    assert read(manual).static == "docs/.vitepress/dist"
    beside = package(
        scripts={"docs:build": "vitepress build docs", "start": "node x.js"}, devDependencies={"vitepress": "1"}
    )
    assert read(beside).processes[0].command == "node x.js"
    plan, _ = build_plan(
        read(manual), FakeTree(manual), slug=Path("/s"), cache=Path("/c"), tools=Path("/t"), settings=Settings()
    )
    assert any(step.argv[-1] == "docs:build" for step in plan.steps)


@pytest.mark.parametrize(
    ("fields", "files", "command"),
    [
        ({"dependencies": {"nuxt": "3"}, "scripts": {"build": "nuxt build"}}, {}, "node .output/server/index.mjs"),
        ({"devDependencies": {"@sveltejs/kit": "2", "@sveltejs/adapter-node": "5", "vite": "6"},
          "scripts": {"build": "vite build"}}, {}, "PROTOCOL_HEADER=x-forwarded-proto node build"),
        ({"devDependencies": {"@sveltejs/kit": "2", "@sveltejs/adapter-auto": "6", "vite": "6"},
          "scripts": {"build": "vite build"}}, {}, "PROTOCOL_HEADER=x-forwarded-proto node build"),
        ({"dependencies": {"next": "15"}, "scripts": {"build": "next build", "start": "next dev"}}, {}, "next start -H 127.0.0.1"),
        ({"dependencies": {"@nestjs/core": "10"}, "scripts": {"build": "nest build", "start": "nest start",
          "start:prod": "node dist/main"}}, {}, "node dist/main"),
        ({"dependencies": {"express": "4"}, "main": "./lib/server.js"}, {"lib/server.js": ""}, "node lib/server.js"),
        ({"dependencies": {"express": "4"}, "main": "gone.js"}, {"src/index.js": ""}, "node src/index.js"),
        ({"dependencies": {"koa": "2"}, "scripts": {"start": "npm run dev", "dev": "nodemon app.js"}}, {"app.js": ""}, "node app.js"),
    ],
)  # fmt: skip
def test_a_server_without_a_start_script_is_started_by_what_is_built_or_installed(
    fields: Any, files: dict[str, str], command: str
) -> None:
    assert read({"package.json": json.dumps({"name": "a", **fields}), **files}).processes[0].command == command


@pytest.mark.parametrize(
    ("needs", "told"),
    [("@sveltejs/adapter-vercel", "SvelteKit builds for the host"), ("@astrojs/vercel", "another host")],
)
def test_what_is_built_for_another_host_is_told_how_it_is_built_for_this_one(needs: str, told: str) -> None:
    kit = {"@sveltejs/kit": "2"} if "svelte" in needs else {}
    with pytest.raises(Rejected, match=told):
        read(package(scripts={"build": "vite build"}, devDependencies={needs: "1", "vite": "6", **kit}))


def test_sveltekit_that_asks_where_it_is_built_hears_of_a_server_of_node() -> None:
    files = package(
        scripts={"build": "vite build"}, devDependencies={"@sveltejs/kit": "2", "@sveltejs/adapter-auto": "6"}
    )
    plan, _ = build_plan(
        read(files), FakeTree(files), slug=Path("/s"), cache=Path("/c"), tools=Path("/t"), settings=Settings()
    )
    (step,) = (step for step in plan.steps if step.argv[-1] == "build")
    assert step.environment["GCP_BUILDPACKS"]


@pytest.mark.parametrize(
    ("scripts", "command"),
    [
        ({"build": "tsc", "start": "npm run build && node dist/app.js"}, "node dist/app.js"),
        ({"build": "tsc", "prestart": "npm run build", "start": "node dist/app.js"}, "node dist/app.js"),
        ({"build": "tsc", "prestart": "npm run build && node migrate.js", "start": "node dist/app.js"}, "npm start"),
        ({"prestart": "tsc", "start": "node dist/app.js"}, "npm start"),
    ],
)
def test_a_start_that_builds_first_finds_that_done(scripts: dict[str, str], command: str) -> None:
    assert read(package(scripts=scripts)).processes[0].command == command
