from __future__ import annotations

import pytest
from trees import FakeTree

from receiver.errors import Rejected
from receiver.runtimes.python.detect import find
from receiver.runtimes.read import read_manifest

FLASK = "from flask import Flask\n\nsite = Flask(__name__)\n"
FASTAPI = "import fastapi\napi: fastapi.FastAPI = fastapi.FastAPI()\n"
DJANGO = {
    "manage.py": "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'blog.settings')\n",
    "other/wsgi.py": "application = get_wsgi_application()\n",
    "blog/wsgi.py": "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n",
}


def web(files: dict[str, str]) -> str:
    return read_manifest(FakeTree(files)).processes[0].command


def test_flask_with_gunicorn_needs_no_procfile() -> None:
    manifest = read_manifest(FakeTree({"app.py": FLASK, "requirements.txt": "flask\nGunicorn>=20\n"}))
    assert manifest.processes[0].command == "gunicorn app:site"
    assert manifest.notices == ("No Procfile: Flask at app.py:3, so `web: gunicorn app:site`.",)


def test_fastapi_with_uvicorn_needs_no_procfile() -> None:
    assert web({"app/main.py": FASTAPI, "requirements.txt": "fastapi\nuvicorn\n"}) == "uvicorn app.main:api"


def test_fastapis_standard_extra_brings_uvicorn() -> None:
    assert web({"main.py": FASTAPI, "requirements.txt": "fastapi[standard]==0.115\n"}) == "uvicorn main:api"


def test_django_is_started_by_the_wsgi_module_its_settings_name() -> None:
    assert web({**DJANGO, "requirements.txt": "django\ngunicorn\n"}) == "gunicorn blog.wsgi:application"


def test_a_factory_without_arguments_is_an_app() -> None:
    source = "from flask import Flask\ndef create_app():\n    app = Flask(__name__)\n    return app\n"
    assert web({"app.py": source, "requirements.txt": "flask\ngunicorn\n"}) == 'gunicorn "app:create_app()"'


def test_the_server_may_come_from_a_lock_file() -> None:
    lock = '[[package]]\nname = "gunicorn"\nversion = "23"\n'
    assert web({"app.py": FLASK, "uv.lock": lock, "pyproject.toml": ""}) == "gunicorn app:site"


def test_without_the_server_the_line_to_write_is_told() -> None:
    with pytest.raises(Rejected) as caught:
        read_manifest(FakeTree({"app.py": FLASK, "requirements.txt": "flask\n"}))
    assert "app.py:3: There is no Procfile. This is Flask, but gunicorn is not among" in caught.value.message
    assert "Add gunicorn to requirements.txt" in caught.value.hint and "web: gunicorn app:site" in caught.value.hint


def test_a_project_that_is_not_recognised_is_told_what_to_write() -> None:
    with pytest.raises(Rejected) as caught:
        read_manifest(FakeTree({"thing.py": "print(1)\n", "requirements.txt": ""}))
    assert "web: gunicorn app:app" in caught.value.hint


@pytest.mark.parametrize(
    "source",
    [
        '"""\napp = Flask(__name__)\n"""\n',
        "def f():\n    app = Flask(__name__)\n",
        "app = Flask(\n",
        "x = " + "(" * 9999,
        "\0",
    ],
)
def test_text_that_only_looks_like_an_app_is_none(source: str) -> None:
    assert find(FakeTree({"app.py": source})) is None


def test_sources_are_never_run(tmp_path: object) -> None:
    assert find(FakeTree({"app.py": "raise SystemExit('run')\napp = Flask(__name__)\n"})) is not None
