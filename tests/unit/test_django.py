"""Django: its static files, what it writes, and what its settings read from the environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from trees import FakeTree, read, steps

from receiver.cli.main import run
from receiver.gate.keys import LOCAL_ADMIN
from receiver.runtimes.build import build_plan
from receiver.runtimes.python import django
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings

MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\nimport django\n"
SETTINGS = (
    "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}}\n"
    "MEDIA_ROOT = BASE_DIR / 'media'\nSTATIC_ROOT = BASE_DIR / 'staticfiles'\n"
)
DJANGO = {
    "manage.py": MANAGE, "site1/settings.py": SETTINGS, "site1/wsgi.py": "application = get_wsgi_application()\n",
    "requirements.txt": "django\ngunicorn\n",
}  # fmt: skip


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


def test_django_below_src_is_started_from_there() -> None:
    files = {
        "manage.py": MANAGE, "src/site1/wsgi.py": "application = get_wsgi_application()\n",
        "requirements.txt": "django\ngunicorn\n",
    }  # fmt: skip
    assert read_manifest(FakeTree(files)).processes[0].command == "gunicorn --chdir src site1.wsgi:application"


def test_init_writes_what_the_project_needs_and_touches_nothing_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in DJANGO.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert run(["init", str(tmp_path)], LOCAL_ADMIN) == 0
    assert (
        tmp_path / "Procfile"
    ).read_text() == "web: gunicorn site1.wsgi:application\nrelease: python manage.py migrate --noinput\n"
    assert (tmp_path / "shipit.yml").read_text().startswith("storage: [db.sqlite3, media]")
    (tmp_path / "Procfile").write_text("web: mine\n")
    assert run(["init", str(tmp_path)], LOCAL_ADMIN) == 0 and (tmp_path / "Procfile").read_text() == "web: mine\n"
    assert "Nothing to write" in capsys.readouterr().out
    assert run(["check", str(tmp_path)], LOCAL_ADMIN) == 0
