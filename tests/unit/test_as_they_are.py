"""Other people's projects: manifests of other receivers, links, Django's settings, versions from git, what fails and why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from trees import FakeTree

from receiver.cli.main import run
from receiver.errors import Rejected
from receiver.gate.keys import LOCAL_ADMIN
from receiver.inside import storage
from receiver.manifest import Manifest
from receiver.manifest.tree import lead
from receiver.model import Change, Release, Status
from receiver.names import AppName
from receiver.runtimes.build import build_plan
from receiver.runtimes.python import django, own
from receiver.runtimes.python.scm import version_of
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings
from receiver.story.advice import advice, build_advice
from receiver.system import apt

BLOG = Release(app=AppName("blog"), number=3, change=Change.DEPLOY, status=Status.BUILDING, by="a", created=0.0)
MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\nimport django\n"
SETTINGS = (
    "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}}\n"
    "MEDIA_ROOT = BASE_DIR / 'media'\nSTATIC_ROOT = BASE_DIR / 'staticfiles'\n"
)
DJANGO = {
    "manage.py": MANAGE, "site1/settings.py": SETTINGS, "site1/wsgi.py": "application = get_wsgi_application()\n",
    "requirements.txt": "django\ngunicorn\n",
}  # fmt: skip


class Linked(FakeTree):
    """With links, as a commit has them."""

    def __init__(self, files: Mapping[str, str | bytes], links: Mapping[str, str]) -> None:
        known = {**files, **{path: files[to] for path, to in links.items() if to in files}}
        super().__init__(known)
        self._links = dict(links)

    def links(self) -> Mapping[str, str]:
        return self._links


def read(files: Mapping[str, str]) -> Manifest:
    return read_manifest(FakeTree({"Procfile": "web: x\n", **files}))


def steps(files: Mapping[str, str], described: str = "") -> tuple[list[str], Mapping[str, str]]:
    tree = FakeTree({"Procfile": "web: x\n", **files})
    place = Path("/nowhere")
    plan, _ = build_plan(
        read_manifest(tree),
        tree,
        slug=place,
        cache=place,
        tools=place,
        settings=Settings(),
        described=lambda: described,
    )
    return [step.title for step in plan.steps], plan.environment


def test_app_json_has_defaults_wants_and_secrets() -> None:
    env = {
        "A": "1",
        "B": {"value": "2"},
        "C": {"description": "a key"},
        "D": {"required": False},
        "S": {"generator": "secret"},
    }
    found = read({"app.json": json.dumps({"env": env}), "ENV": "# piku's\nA=0\nNGINX_SERVER_NAME=x\nE='five'\n"})
    assert dict(found.env) == {"A": "1", "B": "2", "E": "five"}
    assert [key for key, _ in found.required] == ["C"] and found.secrets == ("S",)
    assert not read({"app.json": json.dumps({"env": {"C": {}}}), "shipit.yml": "env: {C: said}\n"}).required


@pytest.mark.parametrize("env", [{"1A": "x"}, {"A": {"generator": "uuid"}}, {"A": {"value": []}}, {"PATH": "x"}])
def test_what_app_json_cannot_have_is_refused_with_its_line(env: object) -> None:
    with pytest.raises(Rejected, match=r"app\.json:1: "):
        read({"app.json": json.dumps({"env": env})})


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


def test_djangos_static_files_are_collected_where_it_says_where_to() -> None:
    assert steps(DJANGO)[0] == ["Collecting static files"]
    assert steps({**DJANGO, "site1/settings.py": "STATIC_URL = 'static/'\n"})[0] == []
    own = {**DJANGO, "shipit.yml": "build: {command: python manage.py collectstatic}\n"}
    assert steps(own)[0] == ["Running the build command"]
    hooks = {**DJANGO, "bin/post_compile": "x\n", "bin/pre_compile": "y\n"}
    assert steps(hooks)[0] == ["Running bin/pre_compile", "Collecting static files", "Running bin/post_compile"]


def test_what_django_writes_beside_its_code_is_told_with_the_line_to_write() -> None:
    told = "\n".join(read(DJANGO).notices)
    assert "storage: [db.sqlite3, media]" in told and "whitenoise" in told
    quiet = {**DJANGO, "shipit.yml": "storage: [db.sqlite3, media]\n", "requirements.txt": "django\nwhitenoise\n"}
    assert not read(quiet).notices


@pytest.mark.parametrize(
    ("text", "hosts", "secrets"),
    [
        (
            'ALLOWED_HOSTS = [x.strip() for x in os.environ.get("ALLOWED_HOSTS", "*").split(",")]',
            ("ALLOWED_HOSTS",),
            (),
        ),
        ('ALLOWED_HOSTS = config(\n    "DJANGO_ALLOWED_HOSTS",\n    cast=Csv(),\n)', ("DJANGO_ALLOWED_HOSTS",), ()),
        ('if not DEBUG:\n    ALLOWED_HOSTS: list[str] = env.list("HOSTS")', ("HOSTS",), ()),
        ('ALLOWED_HOSTS = [os.environ["HOSTNAME"]]\nCORS_ALLOWED_HOSTS = os.environ["CORS_ALLOWED_HOSTS"]', (), ()),
        ('ALLOWED_HOSTS = json.loads(os.environ.get("ALLOWED_HOSTS", "[]"))', (), ()),
        ('ALLOWED_HOSTS = env.json("ALLOWED_HOSTS", default=[])', (), ()),
        ("SECRET_KEY = os.environ['SECRET_KEY']", (), ("SECRET_KEY",)),
        ('SECRET_KEY = os.environ.get(\n    "DJANGO_KEY"\n) or None  # unsafe', (), ("DJANGO_KEY",)),
        ('SECRET_KEY = os.getenv("SECRET_KEY", "")', (), ("SECRET_KEY",)),
        ('SECRET_KEY = config("SECRET_KEY", cast=str)', (), ("SECRET_KEY",)),
        ('SECRET_KEY = os.environ.get("SECRET_KEY") or "known"', (), ()),
        ('SECRET_KEY = env.str("SECRET_KEY", default="known")', (), ()),
        ('env = Env(SECRET_KEY=(str, "known"))\nSECRET_KEY = env("SECRET_KEY")', (), ()),
    ],
)
def test_what_djangos_settings_read_from_the_environment_and_shipit_knows_needs_no_line(
    text: str, hosts: tuple[str, ...], secrets: tuple[str, ...]
) -> None:
    found = read({**DJANGO, "site1/settings.py": f"{text}\n"})
    assert (dict(found.env), found.secrets) == (dict.fromkeys(hosts, "*"), secrets)


def test_what_the_commit_says_of_a_config_var_wins_over_what_shipit_knows() -> None:
    text = 'ALLOWED_HOSTS = env.list("ALLOWED_HOSTS")\nSECRET_KEY = env("SECRET_KEY")\n'
    files = {**DJANGO, "site1/settings.py": text, "shipit.yml": "env: {ALLOWED_HOSTS: x.test, SECRET_KEY: mine}\n"}
    assert dict(read(files).env) == {"ALLOWED_HOSTS": "x.test", "SECRET_KEY": "mine"} and not read(files).secrets
    wanted = {"env": {"SECRET_KEY": {"description": "a key"}, "OTHER": {}}}
    found = read({**DJANGO, "site1/settings.py": text, "app.json": json.dumps(wanted)})
    assert [key for key, _ in found.required] == ["OTHER"] and found.secrets == ("SECRET_KEY",)


def test_a_build_collects_static_files_without_the_apps_secret(tmp_path: Path) -> None:
    files = {**DJANGO, "site1/settings.py": 'STATIC_ROOT = "x"\nSECRET_KEY = os.environ["SECRET_KEY"]\n'}
    tree = FakeTree({"Procfile": "web: x\n", **files})
    plan, _ = build_plan(read_manifest(tree), tree, slug=tmp_path, cache=tmp_path, tools=tmp_path, settings=Settings())
    [step] = [step for step in plan.steps if step.title == "Collecting static files"]
    (tmp_path / "manage.py").write_text("import os, sys\nprint(sys.argv[1], os.environ['SECRET_KEY'])\n")
    (tmp_path / "python").symlink_to(sys.executable)
    for given, seen in ({}, "of-this-build-alone"), ({"SECRET_KEY": "the app's"}, "the app's"):
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(
            step.argv, env={**path, **given}, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
        )
        assert done.stdout == f"collectstatic {seen}\n"
    for words, code in (("without having set the STATIC_ROOT setting", 0), ("another trouble", 1)):
        (tmp_path / "manage.py").write_text(f"raise SystemExit({words!r})\n")
        done = subprocess.run(step.argv, env=path, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, django.NOWHERE in done.stdout, words in done.stderr) == (code, not code, True)


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


def test_django_below_src_is_started_from_there() -> None:
    files = {
        "manage.py": MANAGE, "src/site1/wsgi.py": "application = get_wsgi_application()\n",
        "requirements.txt": "django\ngunicorn\n",
    }  # fmt: skip
    assert read_manifest(FakeTree(files)).processes[0].command == "gunicorn --chdir src site1.wsgi:application"


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


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("KeyError: 'SECRET_KEY'", "build: {config: [SECRET_KEY]}"),
        ("django.core.exceptions.ImproperlyConfigured: Set the DATABASE_URL environment variable", "config: [DATABASE_URL]"),
        ("decouple.UndefinedValueError: API_KEY not found. Declare it", "config: [API_KEY]"),
        ("Error: pg_config executable not found.", "apt:allow libpq-dev"),
        ("/bin/bash: line 1: pkg-config: command not found", "apt:allow pkg-config"),
        ("fatal error: ffi.h: No such file or directory", "apt:allow libffi-dev"),
        ("error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory", "apt:allow build-essential"),
        ("run Composer with `--ignore-platform-req=ext-curl --ignore-platform-req=ext-dom`", "apt:allow php-curl php-xml"),
        ("Because the current Python version (3.11.2) does not satisfy Python>=3.12 and you", "python: 3.12"),
        ("make: *** No rule", ""),
    ],
)  # fmt: skip
def test_a_failed_build_names_what_is_missing_and_what_to_type(line: str, told: str) -> None:
    found = build_advice(BLOG, ["Installing", line, "× Failed to build"])
    assert told in found and bool(told) == bool(found)


def test_who_lacks_a_header_is_told_of_the_compiler_in_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "missing", lambda names: [name for name in names if name != "there"])
    line = "Error: pg_config executable not found."
    found = build_advice(replace(BLOG, runtime="python 3.12 + node"), [line])
    assert "apt: [libpq-dev, build-essential, python3-dev]" in found
    assert "apt: [ffmpeg]" in build_advice(replace(BLOG, runtime="python"), ["sh: ffmpeg: not found"])


def test_what_may_not_be_written_is_answered_with_the_line_of_storage() -> None:
    at = "/var/lib/shipit/apps/blog/slugs/v3"
    assert "storage: [logs]" in advice(BLOG.app, [f"OSError: [Errno 30] Read-only file system: '{at}/logs/app.log'"])
    assert "storage: [media/x]" in advice(BLOG.app, [f"PermissionError: [Errno 13] Permission denied: '{at}/media/x'"])
    assert "storage" not in advice(BLOG.app, ["OSError: [Errno 30] Read-only file system: '/opt/x'"])


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


def test_pikus_preflight_runs_in_the_build_and_its_php_is_served() -> None:
    found = read({"Procfile": "php: public\npreflight: make\n", "shipit.yml": "build: {command: ./more}\n"})
    assert found.processes[0].command == "serve-php public" and found.build_command == "(\nmake\n) &&\n./more"


def test_herokus_php_servers_are_served_too() -> None:
    found = read({"Procfile": "web: vendor/bin/heroku-php-nginx -C nginx.conf public/\n", "composer.json": "{}"})
    assert found.processes[0].command == "serve-php public" and found.processes[0].listen.value == "socket"


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


def test_an_aptfile_is_read_and_what_is_no_package_of_debian_in_it_is_told() -> None:
    text = "# media\nffmpeg  libpq5:amd64\n:repo:deb http://x.test/ stable main\nhttps://x.test/a.deb\n"
    manifest = read({"Aptfile": text, "shipit.yml": "apt: [ffmpeg, g++]\n"})
    assert manifest.apt == ("ffmpeg", "g++", "libpq5")
    assert [line.split(": ")[0] for line in manifest.notices] == ["Aptfile:3", "Aptfile:4"]
    for name in ("ffmpeg-", "-y", "x;y", "A"):
        with pytest.raises(Rejected, match="Aptfile:1"):
            read({"Aptfile": f"{name}\n"})


def test_pages_that_a_build_makes_are_served_without_a_line() -> None:
    package = {"scripts": {"start": "npx @11ty/eleventy --serve", "build": "npx @11ty/eleventy"}}
    found = read_manifest(FakeTree({"package.json": json.dumps(package)}))
    assert found.static == "_site" and not found.processes
    package = {"scripts": {"start": "vite", "build": "vite build"}, "dependencies": {"@sveltejs/kit": "2"}}
    with pytest.raises(Rejected, match="no Procfile"):
        read_manifest(FakeTree({"package.json": json.dumps(package)}))


def test_init_writes_what_the_project_needs_and_touches_nothing_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in DJANGO.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert run(["init", str(tmp_path)], LOCAL_ADMIN) == 0
    assert (tmp_path / "Procfile").read_text() == "web: gunicorn site1.wsgi:application\n"
    assert (tmp_path / "shipit.yml").read_text().startswith("storage: [db.sqlite3, media]")
    (tmp_path / "Procfile").write_text("web: mine\n")
    assert run(["init", str(tmp_path)], LOCAL_ADMIN) == 0 and (tmp_path / "Procfile").read_text() == "web: mine\n"
    assert "Nothing to write" in capsys.readouterr().out
    assert run(["check", str(tmp_path)], LOCAL_ADMIN) == 0


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


def test_dokkus_checks_is_the_healthcheck_of_web() -> None:
    text = "WAIT=2\nTIMEOUT=10 \nATTEMPTS=3\n\n# a page\nhttp://x.test/health  all well\n/other\nnonsense\n"
    manifest = read({"CHECKS": text})
    check = manifest.processes[0].check
    assert (check.path, check.content, check.timeout) == ("/health", "all well", 38)
    assert [line.split(" ")[0] for line in manifest.notices] == ["CHECKS:8:", "CHECKS:"]
    mine = read({"CHECKS": text, "shipit.yml": "processes: {web: {healthcheck: {path: /up, timeout: 5}}}\n"})
    assert (mine.processes[0].check.path, mine.processes[0].check.timeout) == ("/up", 5)


def test_an_example_of_an_environment_names_config_vars() -> None:
    text = "# what it needs\nSECRET_KEY=change-me\nexport MAIL_SERVER=\n#OPTIONAL=1\nPORT=8000\nlower=1\n"
    assert read({".env.example": text}).example == (".env.example", ("SECRET_KEY", "MAIL_SERVER"))
    assert read({}).example == ("", ())


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
