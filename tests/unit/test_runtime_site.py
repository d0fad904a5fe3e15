"""Generators of pages: by what each is found, what is installed for it, where its pages are, and what is no site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trees import FakeTree

from receiver.errors import Rejected
from receiver.ledger.say import Say
from receiver.manifest import Manifest
from receiver.model import Change, Release, Status
from receiver.names import AppName
from receiver.runtimes.base import BuildPlan
from receiver.runtimes.build import build_plan
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings
from receiver.story.advice import build_advice

HUGO = {"hugo.toml": "baseURL = 'https://example.org/'\n", "content/_index.md": "hello"}
JEKYLL = {"_config.yml": "title: x\nbaseurl: /blog\n", "_posts/2024-01-01-one.md": "---\n---\none"}
MKDOCS = {"mkdocs.yml": "site_name: x\ntheme:\n  name: material\n", "docs/index.md": "# One"}
SPHINX = {"docs/conf.py": "project = 'x'\nextensions = ['myst_parser']\nhtml_theme = 'furo'\n", "docs/index.rst": "x"}
PELICAN = {"pelicanconf.py": "AUTHOR = 'x'\n", "content/one.md": "Title: one"}
LOCKED = {"Gemfile": "gem 'jekyll'\n", "Gemfile.lock": "GEM\n  specs:\n    jekyll (4.3.3)\n"}

BLOG = Release(app=AppName("blog"), number=3, change=Change.DEPLOY, status=Status.BUILDING, by="a", created=0.0)


def read(files: dict[str, str]) -> Manifest:
    return read_manifest(FakeTree(files))


def plan(files: dict[str, str]) -> BuildPlan:
    place, tree = Path("/s/v8"), FakeTree(files)
    return build_plan(read(files), tree, slug=place, cache=Path("/c"), tools=Path("/t"), settings=Settings())[0]


def installed(files: dict[str, str]) -> list[str]:
    """What the environment of the generator is filled with."""
    (made,) = plan(files).made
    return list(made.steps[-1].argv[3:])


def package(**fields: Any) -> dict[str, str]:
    return {"package.json": json.dumps({"name": "a", **fields})}


@pytest.mark.parametrize(
    ("files", "evidence"),
    [(HUGO, "hugo.toml"), (JEKYLL, "_config.yml"), (MKDOCS, "mkdocs.yml"), (SPHINX, "docs/conf.py"), (PELICAN, "pelicanconf.py"),
     ({"config.yaml": "baseURL: x\n", "themes/a/theme.toml": ""}, "config.yaml")],
)  # fmt: skip
def test_a_generator_s_configuration_is_enough_for_its_pages(files: dict[str, str], evidence: str) -> None:
    manifest = read(files)
    assert manifest.runtimes == (("site", evidence),) and manifest.static and not manifest.processes
    assert evidence in manifest.notices[0] and "No Procfile" in manifest.notices[0]


def test_what_a_site_has_beside_it_does_not_make_it_an_app() -> None:
    # Pages with a first page of their own, the packages of a formatter, a manual's Dockerfile.
    assert dict(read({**JEKYLL, "index.html": "---\n---\n"}).runtimes) == {"site": "_config.yml"}
    assert read({**HUGO, "Dockerfile": "FROM x\n"}).static
    styles = {**HUGO, **package(devDependencies={"postcss": "8"}, scripts={"build": "postcss a.css"})}
    assert [name for name, _ in read(styles).runtimes] == ["site", "node"]
    assert plan(styles).steps[-1].argv[0] == "hugo"
    named = {**HUGO, **package(devDependencies={"hugo-extended": "0.128.0"}, scripts={"build": "hugo --minify"})}
    assert read(named).static == "public" and [name for name, _ in read(named).runtimes] == ["node"]


def test_an_app_with_a_manual_is_the_app() -> None:
    flask = {"app.py": "from flask import Flask\napp = Flask(__name__)\n", "requirements.txt": "flask\ngunicorn\n"}
    for manual in (MKDOCS, SPHINX):
        assert read({**flask, **manual}).processes[0].command == "gunicorn app:app"
        assert read({"Procfile": "web: x\n", **manual}).processes
        with pytest.raises(Rejected, match="a Rust app"):
            read({"Cargo.toml": "", **manual})
        with pytest.raises(Rejected, match="no Procfile"):
            read({"requirements.txt": "flask\n", "shop/__init__.py": "", **manual})
    # A theme for the README is no site.
    with pytest.raises(Rejected, match="no Procfile"):
        read({"_config.yml": "theme: jekyll-theme-cayman\n", "README.md": "x"})
    # A library that nobody can start is shown by its manual.
    library = {"setup.py": "", "a/__init__.py": "", **SPHINX}
    assert read(library).runtimes == (("site", "docs/conf.py"),)


def test_the_project_s_own_list_of_a_manual_counts_else_what_its_configuration_names() -> None:
    assert installed(MKDOCS) == ["mkdocs", "mkdocs-material"]
    assert installed(SPHINX) == ["sphinx", "furo", "myst-parser"]
    listed = {**MKDOCS, "docs/requirements.txt": "mkdocs-material==9.5\n"}
    assert installed(listed) == ["-r", "docs/requirements.txt", "mkdocs"]
    told = {
        **listed,
        ".readthedocs.yaml": "python:\n  install:\n    - requirements: doc/needs.txt\n",
        "doc/needs.txt": "mkdocs",
    }
    assert installed(told) == ["-r", "doc/needs.txt", "mkdocs-material"]
    extra = {**SPHINX, "pyproject.toml": "[project]\nname = 'a'\noptional-dependencies = {docs = ['furo']}\n"}
    assert installed(extra) == ["-e", ".[docs]", "sphinx"]
    # What the project's own code decides is for this release alone.
    assert plan(listed).made[0].key and not plan(extra).made[0].key
    assert plan(listed).made[0].key != plan({**listed, "docs/requirements.txt": "mkdocs-material==9.6\n"}).made[0].key
    own = {**PELICAN, "requirements.txt": "pelican\nmarkdown\n"}
    assert [made.name for made in plan(own).made] == [".venv"] and plan(own).steps[-1].argv[0] == "pelican"


def test_hugo_is_of_the_version_that_published_the_site_so_far() -> None:
    assert not read(HUGO).version("site")
    flow = {".github/workflows/hugo.yaml": "env:\n  HUGO_VERSION: 0.128.0\n"}
    netlify = {"netlify.toml": '[build.environment]\nHUGO_VERSION = "0.121.2"\n'}
    assert read({**HUGO, **flow}).version("site") == "0.128.0"
    assert read({**HUGO, **netlify}).version("site") == "0.121.2"
    assert plan({**HUGO, **flow}).made[0].key != plan(HUGO).made[0].key
    assert "0.128.0" in plan({**HUGO, **flow}).runtime


def test_pages_that_lived_below_an_address_are_at_the_top_here() -> None:
    assert "--baseURL" not in plan(HUGO).steps[-1].argv
    below = {**HUGO, "hugo.toml": 'baseURL = "https://one.example.org/blog/"\n'}
    assert plan(below).steps[-1].argv[-2:] == ("--baseURL", "/")
    assert plan(JEKYLL).steps[-1].argv[-2:] == ("--baseurl", "")


def test_jekyll_is_of_the_lock_or_the_server_s() -> None:
    assert [name for name, _ in read({**JEKYLL, **LOCKED}).runtimes] == ["site", "ruby"]
    assert plan({**JEKYLL, **LOCKED}).steps[-1].argv[:3] == ("bundle", "exec", "jekyll")
    without = plan({**JEKYLL, "Gemfile": "gem 'jekyll'\n"})
    assert not without.made and without.steps[-1].environment["JEKYLL_NO_BUNDLER_REQUIRE"] == "true"


@pytest.mark.parametrize("place", ["public", "docs", "www", "_site"])
def test_a_first_page_in_a_directory_of_pages_is_enough(place: str) -> None:
    manifest = read({f"{place}/index.html": "x", "README.md": "y"})
    assert manifest.static == place and f"static: {place}" in manifest.notices[0]
    assert read({f"{place}/index.html": "x", "index.html": "y"}).static == "."
    with pytest.raises(Rejected, match="a Rust app"):
        read({f"{place}/index.html": "x", "Cargo.toml": ""})


def test_what_debian_s_jekyll_lacks_is_told() -> None:
    for line, told in (
        ("sh: 1: jekyll: not found", "apt: [jekyll]"),
        ("cannot load such file -- jekyll-feed (LoadError)", "apt: [ruby-jekyll-feed]"),
        ("The minima theme could not be found.", "apt: [jekyll-theme-minima]"),
        ("The jekyll-theme-hacker theme could not be found.", "git add Gemfile.lock"),
        ("find': Tried to load unspecified class: Symbol (Psych::DisallowedClass)", "write expanded for :expanded"),
    ):
        assert told in build_advice(BLOG, [line, "from here"]), line


def test_the_cause_of_a_failed_build_is_found_above_a_long_trace(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    say = Say(log)
    for line in (
        "gyp ERR! stack Error: not found: make",
        *(f"gyp ERR! stack at step {number}" for number in range(60)),
    ):
        say.foreign(line)
    say.close()
    assert "apt: [build-essential" in build_advice(BLOG, say.last)
