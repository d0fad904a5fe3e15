"""Other people's projects: links, directories, versions from git, locks, servers, pages, and what they write."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from trees import FakeTree, read, steps

from receiver.errors import Rejected
from receiver.inside import storage
from receiver.manifest.tree import lead
from receiver.model import Change, Release, Status
from receiver.names import AppName
from receiver.runtimes.build import build_plan
from receiver.runtimes.python import own
from receiver.runtimes.python.scm import version_of
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings

BLOG = Release(app=AppName("blog"), number=3, change=Change.DEPLOY, status=Status.BUILDING, by="a", created=0.0)


class Linked(FakeTree):
    """With links, as a commit has them."""

    def __init__(self, files: Mapping[str, str | bytes], links: Mapping[str, str]) -> None:
        known = {**files, **{path: files[to] for path, to in links.items() if to in files}}
        super().__init__(known)
        self._links = dict(links)

    def links(self) -> Mapping[str, str]:
        return self._links


def test_storage_is_read_and_places_that_cannot_be_are_refused() -> None:
    assert read({"shipit.yml": "storage: [uploads:public/up, db.sqlite3]\n"}).storage == (
        ("uploads", "public/up"), ("db.sqlite3", "db.sqlite3"),
    )  # fmt: skip
    for bad in ("[../x]", "[/etc:x]", "[a:b, c:b/d]", "[a:.venv]", "['a b']"):
        with pytest.raises(Rejected, match=r"shipit\.yml"):
            read({"shipit.yml": f"storage: {bad}\n", "requirements.txt": "flask\n"})


def test_a_place_of_storage_becomes_a_link_whatever_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "media").mkdir()
    (tmp_path / "media/.gitkeep").touch()
    (tmp_path / "etc").symlink_to("/etc")
    for data, place in (("/data/media", "media"), ("/data/up", "public/up"), ("/data/x", "etc/shipit-x")):
        storage.link_to_data(data, place)
    assert [str(Path(p).readlink()) for p in ("media", "public/up", "etc/shipit-x")] == [
        "/data/media",
        "/data/up",
        "/data/x",
    ]
    assert (tmp_path / ".storage/media/.gitkeep").exists()
    assert (tmp_path / "etc").is_dir() and not (tmp_path / "etc").is_symlink()


def test_a_link_counts_as_the_file_that_it_leads_to_or_refuses_the_push() -> None:
    files = {"deploy/Procfile": "web: a\nworker: b\n"}
    found = read_manifest(Linked(files, {"Procfile": "deploy/Procfile"}))
    assert [process.type for process in found.processes] == ["web", "worker"]
    for name in ("Procfile", "shipit.yml", "requirements.txt", "app.json"):
        with pytest.raises(Rejected, match=f"{name}: This is a link that leads to no file"):
            read_manifest(Linked({"deploy/Procfile": "web: a\n"}, {name: ""}))
    with pytest.raises(Rejected, match=r"requirements\.txt: This is a link"):
        inside = {"shipit.yml": "build: {root: api}\n", "api/Procfile": "web: a\n", "all.txt": "flask\n"}
        read_manifest(Linked(inside, {"api/requirements.txt": "all.txt"}))


def test_links_are_followed_inside_of_a_tree_only() -> None:
    links = {"a": "b", "b": "d/c", "d": "real", "loop": "loop", "out": "../x", "abs": "/etc/passwd"}
    assert [lead(path, links.get) for path in ("a", "loop", "out", "abs", "d/x")] == ["real/c", "", "", "", "real/x"]


BELOW = {
    "README.md": "",
    "docs/requirements.txt": "sphinx\n",
    "back/main.py": "import fastapi\napp = fastapi.FastAPI()\n",
}


def test_the_only_directory_that_is_an_app_is_the_app() -> None:
    found = read_manifest(FakeTree({**BELOW, "back/requirements.txt": "fastapi\n"}))
    assert (found.root, found.processes[0].command) == ("back", "uvicorn main:app")
    assert any("build: {root: back}" in notice for notice in found.notices)
    lines = {"api/Procfile": "web: x --port $PORT\n", "api/go.mod": "module x\n", "api/main.go": "package main\n"}
    assert read_manifest(FakeTree(lines)).root == "api"
    with pytest.raises(Rejected, match="not recognised"):
        read_manifest(FakeTree({**BELOW, "back/requirements.txt": "fastapi\n", **lines}))
    top = {**BELOW, "back/requirements.txt": "fastapi\n", "Procfile": "web: ./start\n", "start": ""}
    assert not read_manifest(FakeTree(top)).root


def test_a_container_that_is_used_for_want_of_a_line_names_the_line() -> None:
    text = '[project]\nname = "shop"\nversion = "1"\n[project.scripts]\nshop = "shop:main"\n'
    found = read_manifest(FakeTree({"Dockerfile": "FROM x\nCMD y\n", "pyproject.toml": text}))
    assert any("(as python) it runs with a Procfile" in line and "web: shop --port" in line for line in found.notices)
    assert not any("Procfile that" in line for line in read_manifest(FakeTree({"Dockerfile": "FROM x\n"})).notices)


def itself(files: Mapping[str, str]) -> bool:
    tree = FakeTree(files)
    place = Path("/nowhere")
    plan, _ = build_plan(read_manifest(tree), tree, slug=place, cache=place, tools=place, settings=Settings())
    return any(step.title == "Installing the project itself" for step in plan.made[0].steps)


def test_a_package_is_installed_where_its_own_program_is_started() -> None:
    text = '[build-system]\nrequires = []\n[project]\nname = "shop"\n[project.scripts]\nshop = "shop:main"\n'
    files = {"requirements.txt": "flask\ngunicorn\n", "pyproject.toml": text, "src/store/__init__.py": ""}
    assert itself({**files, "Procfile": "web: shop --port $PORT\n"})
    assert itself({**files, "Procfile": "web: gunicorn store.web:app\n"})
    assert itself({**files, "Procfile": "web: python -m store\n"})
    setup = "setup(entry_points={'console_scripts': ['shop-web=shop.cli:main']})\n"
    assert itself({"requirements.txt": "flask\n", "setup.py": setup, "Procfile": "web: shop-web --port $PORT\n"})
    for line in ("gunicorn app:app", "python shop.py", "bin/shop", "python src/store/run.py", "python store.py"):
        assert not itself({**files, "Procfile": f"web: {line}\n"}), line
    assert not itself({**files, "pyproject.toml": "[tool.ruff]\n", "Procfile": "web: gunicorn store.web:app\n"})


UV = """\
#!/bin/sh
if [ "$1" = lock ]; then cat next >uv.lock; exit; fi
cmp -s uv.lock next || { echo "error: The lockfile needs to be updated"; exit 1; }
echo "$@ done"
"""


def test_a_lock_with_another_version_of_the_project_alone_still_counts(tmp_path: Path) -> None:
    lock = (
        'version = 1\n\n[[package]]\nname = "flask"\nversion = "3.1"\nsource = { registry = "https://pypi.org/simple" }\n'
        '\n[[package]]\nname = "shop"\nversion = "1.0"\nsource = { editable = "." }\n'
    )
    uv = tmp_path / "uv"
    uv.write_text(UV)
    uv.chmod(0o755)
    for new, code in ((lock, 0), (lock.replace("1.0", "1.1"), 0), (lock.replace("3.1", "3.2"), 1)):
        (tmp_path / "uv.lock").write_text(lock)
        (tmp_path / "next").write_text(new)
        done = subprocess.run(
            ["/bin/sh", "-c", own.SYNC, "sh", str(uv), "sync", "--locked"], cwd=tmp_path, stdout=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, "sync --locked done" in done.stdout) == (code, not code)
        assert (tmp_path / "uv.lock").read_text() == (lock if code else new)
        assert {path.name for path in tmp_path.iterdir()} == {"uv", "uv.lock", "next"}


def test_an_installation_that_fails_with_a_lock_that_fits_is_not_tried_again(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = lock ] && exit\necho "error: no compiler"; exit 2\n')
    uv.chmod(0o755)
    (tmp_path / "uv.lock").write_text("version = 1\n")
    words = ["/bin/sh", "-c", own.SYNC, "sh", str(uv), "sync", "--locked"]
    done = subprocess.run(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "error: no compiler\n")


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("v2.4.1-0-gabc", "2.4.1"), ("v2.4.1-3-gabcdef0123456", "2.4.2.dev3+gabcdef012"), ("12-gabc", "0.1.dev12+gabc"),
        ("release-1.0rc1-2-gabc", "1.0.dev2+gabc"), ("nightly-4-gabc", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_version_is_what_git_says_of_the_commit(described: str, version: str) -> None:
    assert version_of(described) == version


def test_a_project_that_asks_git_for_its_version_is_told() -> None:
    text = '[build-system]\nrequires = ["setuptools", "setuptools-scm>=8"]\n[project]\nname = "my.shop"\n'
    name = "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MY_SHOP"
    assert steps({"pyproject.toml": text}, "v1.2-0-gabc")[1][name] == "1.2"
    assert name not in steps({"pyproject.toml": text.replace("-scm", "")}, "v1.2-0-gabc")[1]


def test_the_lock_of_a_workspace_counts_or_the_push_is_refused() -> None:
    files = {
        "pyproject.toml": "[tool.uv.workspace]\nmembers = ['services/*']\n", "uv.lock": "version = 1\n",
        "services/api/pyproject.toml": "[project]\nname='api'\nversion='1'\n", "services/api/Procfile": "web: x\n",
    }  # fmt: skip
    with pytest.raises(Rejected, match=r"uv\.lock: The lock of the workspace is outside of build\.root"):
        read_manifest(FakeTree({**files, "shipit.yml": "build: {root: services/api}\n"}))
    tree = FakeTree({**files, "Procfile": "web: x\n"})
    place = Path("/nowhere")
    plan, _ = build_plan(read_manifest(tree), tree, slug=place, cache=place, tools=place, settings=Settings())
    assert any("--all-packages" in step.argv for step in plan.made[0].steps)


def test_a_build_may_see_all_config_vars_where_it_is_said() -> None:
    assert read({"shipit.yml": "build: {config: all}\n"}).build_config == ("*",)
    with pytest.raises(Rejected, match=r"build\.config must be a list of names, or all"):
        read({"shipit.yml": "build: {config: some}\n"})
    assert replace(BLOG, build_config=("*",)).build_config


def test_run_stands_for_a_procfile() -> None:
    files = {
        "main.rs": "",
        "shipit.yml": "build: {command: make}\nrun: {web: ./server $PORT, tick: ./tick, release: ./up}\n",
    }
    found = read_manifest(FakeTree(files))
    assert [(p.type, p.command) for p in found.processes] == [("web", "./server $PORT"), ("tick", "./tick")]
    assert found.release_command == "./up"
    assert (
        read_manifest(FakeTree({"x": "", "shipit.yml": "run: ./server $PORT\n"})).processes[0].command
        == "./server $PORT"
    )
    with pytest.raises(Rejected, match=r"shipit\.yml:1: Both the Procfile and `run`"):
        read({"shipit.yml": "run: ./server\n"})
    with pytest.raises(Rejected, match=r"shipit\.yml:1: 'Web' is not a process type"):
        read_manifest(FakeTree({"x": "", "shipit.yml": "run: {Web: x}\n"}))


def test_what_rails_and_laravel_write_beside_themselves_is_data() -> None:
    rails = {
        "Gemfile": "",
        "Gemfile.lock": "",
        "config.ru": "",
        "config/application.rb": "",
        "shipit.yml": "storage: [log]\n",
    }
    assert dict(read(rails).storage) == {"log": "log", "storage": "storage", "rails/tmp": "tmp"}
    assert any(
        place == "storage/logs" for _, place in read_manifest(FakeTree({"public/index.php": "", "artisan": ""})).storage
    )


def test_packages_of_debian_are_named_as_such() -> None:
    assert read({"shipit.yml": "apt: [ffmpeg, libpq-dev]\n"}).apt == ("ffmpeg", "libpq-dev")
    with pytest.raises(Rejected, match="must be the name of a package of Debian"):
        read({"shipit.yml": "apt: ['ffmpeg; reboot']\n"})


def test_pages_that_a_build_makes_are_served_without_a_line() -> None:
    package = {"scripts": {"start": "npx @11ty/eleventy --serve", "build": "npx @11ty/eleventy"}}
    found = read_manifest(FakeTree({"package.json": json.dumps(package)}))
    assert found.static == "_site" and not found.processes
    package = {"scripts": {"start": "vite", "build": "vite build"}, "dependencies": {"@sveltejs/kit": "2"}}
    with pytest.raises(Rejected, match="no Procfile"):
        read_manifest(FakeTree({"package.json": json.dumps(package)}))


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ("uwsgi", "uwsgi --http-socket 127.0.0.1:$PORT --master --processes 2 --die-on-term --module app:app"),
        ("waitress", "waitress-serve --unix-socket=$SOCKET --unix-socket-perms=660 app:app"),
        ("gunicorn", "gunicorn app:app"),
    ],
)
def test_the_server_that_a_project_requires_is_the_one_that_starts_it(server: str, line: str) -> None:
    files = {"app.py": "from flask import Flask\napp = Flask(__name__)\n", "requirements.txt": f"flask\n{server}\n"}
    assert read_manifest(FakeTree(files)).processes[0].command == line


def test_composer_is_not_asked_for_where_the_program_brings_all_it_needs() -> None:
    def words(files: Mapping[str, str]) -> tuple[str, ...]:
        tree, place = FakeTree({"composer.json": json.dumps({"require": {"a/b": "1"}}), **files}), Path("/nowhere")
        found = read_manifest(tree)
        plan, _ = build_plan(found, tree, slug=place, cache=place, tools=place, settings=Settings())
        return next(step.argv for step in plan.steps if "composer" in step.argv[2])

    assert words({"index.php": "<?php require 'own/bootstrap.php';"})[-1] == ""
    assert words({"index.php": "<?php require 'own/bootstrap.php';", "composer.lock": "{}"})[-1] == "composer.lock"
    assert words({"index.php": "<?php require __DIR__ . '/vendor/autoload.php';"})[-1] == "index.php"
    assert words({"public/index.php": "<?php require '../src/app.php';"})[-1] == "index.php"


def test_directories_that_a_php_program_has_kept_open_are_of_its_data() -> None:
    files = {
        "index.php": "<?php", "cache/.gitkeep": "", "user/data/.gitkeep": "", "user/data/.htaccess": "deny from all",
        "user/pages/home.md": "# hello", "data/_dummy": "", "data/tmp/_dummy": "", "tests/tmp/.gitkeep": "",
        ".github/.htaccess": "", "plugins/.gitignore": "*", "logs/a b/.gitkeep": "", "logs/x.log": "",
    }  # fmt: skip
    found = read_manifest(FakeTree(files))
    assert [place for _, place in found.storage] == ["cache", "data", "plugins", "user/data"]
    said = read_manifest(FakeTree({**files, "shipit.yml": "storage: [user]\n"}))
    assert [place for _, place in said.storage] == ["user", "cache", "data", "plugins"]
