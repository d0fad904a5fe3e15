from __future__ import annotations

import pytest
from trees import FakeTree

from receiver.errors import Rejected
from receiver.runtimes.python.brought import specs
from receiver.runtimes.python.detect import find
from receiver.runtimes.python.project import Kind, kind, packages
from receiver.runtimes.read import makes_image, read_manifest

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


def test_a_server_that_the_requirements_lack_is_added_and_told() -> None:
    manifest = read_manifest(FakeTree({"app.py": FLASK, "requirements.txt": "flask\n"}))
    assert manifest.processes[0].command == "gunicorn app:site"
    assert "the build adds one" in manifest.notices[0] and "Add gunicorn to requirements.txt" in manifest.notices[0]


def test_without_any_requirements_the_line_to_write_is_told() -> None:
    with pytest.raises(Rejected) as caught:
        read_manifest(FakeTree({"app.py": FLASK}))
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


def test_an_app_that_a_function_elsewhere_makes_is_recognised_by_the_requirements() -> None:
    source = "from blog import create_app\n\napp = create_app()\n"
    assert web({"wsgi.py": source, "requirements.txt": "flask\ngunicorn\n"}) == "gunicorn wsgi:app"
    assert web({"main.py": source, "requirements.txt": "fastapi\nuvicorn\n"}) == "uvicorn main:app"
    assert find(FakeTree({"wsgi.py": source, "requirements.txt": "gunicorn\n"})) is None
    inside = {
        "app/main.py": "def get_application():\n    ...\napp = get_application()\n",
        "requirements.txt": "fastapi\n",
    }
    assert web(inside) == "uvicorn app.main:app"


def test_a_program_that_answers_no_requests_is_named_as_a_worker() -> None:
    files = {"bot.py": "if __name__ == '__main__':\n    run()\n", "requirements.txt": "aiogram\n"}
    with pytest.raises(Rejected) as refused:
        read_manifest(FakeTree(files))
    assert "worker: python bot.py\n" in refused.value.hint and "{worker: {count: 1}}" in refused.value.hint
    with pytest.raises(Rejected) as refused:
        read_manifest(FakeTree({**files, "requirements.txt": "aiogram\naiohttp\n"}))
    assert "web: " in refused.value.hint


def test_what_windows_has_written_is_read() -> None:
    text = "Flask==3.0\r\ngunicorn\r\n".encode("utf-16")
    assert packages(FakeTree({"requirements.txt": text})) == {"flask", "gunicorn"}


def test_an_old_gunicorn_gets_what_it_imports() -> None:
    def added(text: str) -> list[str]:
        tree = FakeTree({"requirements.txt": text, "Procfile": "web: gunicorn a:b\n"})
        return specs(tree, read_manifest(tree))

    assert added("flask\ngunicorn==20.0.4\n") == ["setuptools<81"]
    assert added("gunicorn==20.0.4\nsetuptools==65\n") == added("gunicorn==23.0\n") == added("gunicorn\n") == []


def test_settings_of_linters_do_not_hide_the_requirements_below() -> None:
    files = {"requirements/production.txt": "flask\n", "pyproject.toml": "[tool.black]\n"}
    assert kind(FakeTree(files)) is Kind.REQUIREMENTS
    assert kind(FakeTree({**files, "setup.cfg": "[flake8]\n"})) is Kind.REQUIREMENTS
    assert kind(FakeTree({**files, "setup.cfg": "[metadata]\nname = x\n"})) is Kind.SETUP
    assert kind(FakeTree({**files, "pyproject.toml": "[project]\nname = 'x'\n"})) is Kind.PYPROJECT
    assert kind(FakeTree({"pyproject.toml": "[tool.black]\n"})) is Kind.PYPROJECT
    assert kind(FakeTree({"pyproject.toml": "[tool.black]\n", "setup.py": ""})) is Kind.SETUP


def test_django_below_the_top_is_started_from_its_directory() -> None:
    files = {f"site/{path}": text for path, text in DJANGO.items()}
    assert web({**files, "requirements.txt": "django\ngunicorn\n"}) == "gunicorn --chdir site blog.wsgi:application"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"uv.lock": "", "pyproject.toml": ""}, "uv add gunicorn"),
        ({"poetry.lock": "", "pyproject.toml": ""}, "poetry add gunicorn"),
        ({"Pipfile.lock": "{}", "Pipfile": ""}, "pipenv install gunicorn"),
        ({"requirements/prod.txt": "flask\n"}, "Add gunicorn to requirements/prod.txt"),
    ],
)
def test_a_missing_server_is_told_in_the_words_of_the_projects_own_tool(files: dict[str, str], told: str) -> None:
    assert told in read_manifest(FakeTree({"app.py": FLASK, **files})).notices[0]


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"requirements.txt": "streamlit\n", "streamlit_app.py": "import streamlit as st\n", "x.py": ""},
         "streamlit run streamlit_app.py --server.port $PORT --server.address 127.0.0.1 --server.headless true"),
        ({"requirements.txt": "dash\n", "app.py": "app = Dash(__name__)\nserver = app.server\n"},
         "gunicorn --threads 4 app:server"),
        ({"requirements.txt": "gradio\n", "demo.py": "demo.launch()\n"},
         "GRADIO_SERVER_PORT=$PORT GRADIO_SERVER_NAME=127.0.0.1 python demo.py"),
        ({"requirements.txt": "aiohttp\n",
          "bot.py": "port = os.environ.get('PORT', 8080)\nif __name__ == '__main__':\n    run()\n"}, "python bot.py"),
    ],
)  # fmt: skip
def test_a_program_that_serves_by_itself_is_started(files: dict[str, str], command: str) -> None:
    assert web(files) == command


def test_a_go_module_with_one_program_below_its_top_is_started() -> None:
    main = "package main\n"
    files = {
        "go.mod": "module example.org/shop/v2\n",
        "app/main.go": main,
        "vendor/x/main.go": main,
        "docs/main.go": main,
    }
    assert web(files) == "bin/app"
    assert web({"go.mod": "module example.org/shop\n", "main.go": main, "cmd/tool/main.go": main}) == "bin/shop"


@pytest.mark.parametrize(
    ("files", "told", "hint"),
    [
        ({"mix.exs": "", "lib/main.ex": ""}, "mix.exs: this is an Elixir app", "Write a Procfile"),
        ({"environment.yml": "", "app.py": FLASK}, "environment.yml: Conda's", "requirements.txt"),
        ({"backend/requirements.txt": "", "app.py": ""}, "backend/requirements.txt: The requirements", "root: backend"),
    ],
)
def test_what_is_not_served_is_answered_by_name(files: dict[str, str], told: str, hint: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_manifest(FakeTree(files))
    assert told in caught.value.message and hint in caught.value.hint


OF_IT = ("dockerfile", "Dockerfile")
PYTHON = {"requirements.txt": "flask\ngunicorn\n", "app.py": FLASK}
SAID = {"shipit.yml": "build: {dockerfile: deploy/Dockerfile}\n", "deploy/Dockerfile": "FROM scratch\n"}


@pytest.mark.parametrize(
    ("files", "runtime"),
    [
        ({"Dockerfile": ""}, OF_IT),
        ({"Containerfile": "", "main.c": ""}, ("dockerfile", "Containerfile")),
        ({"Dockerfile": "", "mix.exs": ""}, OF_IT),
        ({"Dockerfile": "", "app.py": FLASK}, OF_IT),
        ({"Dockerfile": "", **PYTHON}, ("python", "requirements.txt")),
        ({"Dockerfile": "", "Procfile": "web: ./serve"}, ("files", "")),
        ({"Dockerfile": "", "index.html": ""}, ("static", "index.html")),
        ({**PYTHON, "Procfile": "web: gunicorn app:app", **SAID}, ("dockerfile", "deploy/Dockerfile")),
    ],
)
def test_a_dockerfile_is_built_where_it_is_said_or_nothing_else_could_be_run(
    files: dict[str, str], runtime: tuple[str, str]
) -> None:
    manifest = read_manifest(FakeTree(files))
    assert manifest.runtimes == (runtime,)
    [told] = [line for line in manifest.notices if "ockerfile: " in line or "Containerfile: " in line][:1]
    assert ("built as a container image" if runtime[0] == "dockerfile" else "not used") in told
    if "Procfile" not in files and runtime[0] == "dockerfile":
        assert manifest.processes[0].command == "CMD"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("{dockerfile: Other}", "build.dockerfile names 'Other', which is no file of this commit"),
        ("{dockerfile: ../Dockerfile}", "must be a file inside the repository"),
        ("{dockerfile: Dockerfile, command: make}", "RUN make"),
    ],
)
def test_a_dockerfile_that_cannot_be_built_as_it_is_said_is_told_before_anything_is_built(said: str, told: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_manifest(FakeTree({"Dockerfile": "", "shipit.yml": f"build: {said}\n"}))
    assert told in caught.value.message + caught.value.hint


def test_files_of_other_receivers_are_said_to_do_nothing() -> None:
    files = {"Procfile": "web: x", "Dockerfile": "", "Aptfile": "", ".buildpacks": "", "Cargo.toml": ""}
    notices = read_manifest(FakeTree(files)).notices
    assert [told.split(":")[0] for told in notices] == ["Dockerfile", ".buildpacks", "Cargo.toml"]


def test_poetry_without_its_lock_is_told_what_to_type() -> None:
    project = "[tool.poetry]\nname = 'a'\n[tool.poetry.dependencies]\npython = '^3.10'\nflask = '*'\n"
    with pytest.raises(Rejected) as caught:
        read_manifest(FakeTree({"Procfile": "web: x", "pyproject.toml": project}))
    assert "there is no poetry.lock" in caught.value.message and "poetry lock" in caught.value.hint


INSIDE = "from flask import Flask\n\n\ndef create_app(config=None):\n    return Flask(__name__)\n"


def test_the_only_package_that_has_an_app_is_started() -> None:
    files = {"todo/__init__.py": INSIDE, "tests/__init__.py": FLASK, "requirements.txt": "flask\ngunicorn\n"}
    assert web(files) == 'gunicorn "todo:create_app()"'
    with pytest.raises(Rejected):
        web({**files, "other/__init__.py": INSIDE})
    assert (
        web({**files, "other/__init__.py": INSIDE, ".flaskenv": "FLASK_APP=other\n"}) == 'gunicorn "other:create_app()"'
    )
    assert web({**files, "blog.py": FLASK, ".flaskenv": 'export FLASK_APP="blog.py"\n'}) == "gunicorn blog:site"
    needs_more = INSIDE.replace("config=None", "config")
    with pytest.raises(Rejected):
        web({"todo/__init__.py": needs_more, "requirements.txt": "flask\n"})


@pytest.mark.parametrize(
    ("others", "command"),
    [
        ({"run.py": "import os\nport = os.environ['PORT']\nif __name__ == '__main__':\n    pass\n"}, "python run.py"),
        ({"package.json": '{"scripts": {"start": "node server.js"}}'}, "node server.js"),
        ({"index.py": "import dash\napp = dash.Dash(__name__)\nserver = app.server\n"}, "gunicorn --threads 4 index:server"),
    ],
)  # fmt: skip
def test_what_says_how_the_app_runs_wins_over_a_package_that_has_one(others: dict[str, str], command: str) -> None:
    files = {"todo/__init__.py": INSIDE, "requirements.txt": "flask\ngunicorn\ndash\n"}
    assert web({**files, **others}) == command


def test_a_dockerfile_wins_over_a_guess() -> None:
    files = {"todo/__init__.py": INSIDE, "requirements.txt": "flask\ngunicorn\n", "Dockerfile": "FROM x\n"}
    assert makes_image(read_manifest(FakeTree(files)))
    page = {
        "demo/app.py": "import gradio\n",
        "train.py": "",
        "requirements.txt": "gradio\n",
        "README.md": "python train.py\n",
    }
    with pytest.raises(Rejected):
        web(page)
    assert makes_image(read_manifest(FakeTree({**page, "Dockerfile": "FROM x\n"})))


@pytest.mark.parametrize(
    ("imports", "command"),
    [
        ("from config import URL\n", "uvicorn --app-dir backend main:api"),
        ("from backend.config import URL\n", "uvicorn backend.main:api"),
        ("from .config import URL\n", "uvicorn backend.main:api"),
        ("import config\nfrom .config import URL\n", "uvicorn backend.main:api"),
        ("import logging, redis\n", "uvicorn backend.main:api"),
        ("", "uvicorn backend.main:api"),
    ],
)
def test_an_app_is_started_where_its_imports_are_found(imports: str, command: str) -> None:
    files = {"backend/main.py": imports + FASTAPI, "backend/config.py": "", "backend/__init__.py": ""}
    files |= {"backend/logging.py": "", "backend/redis.py": ""}
    assert web({**files, "requirements.txt": "fastapi\nuvicorn\nredis\n"}) == command


def test_a_package_is_started_as_a_package() -> None:
    files = {
        "app/__init__.py": f"from config import x\n{INSIDE}",
        "app/config.py": "",
        "requirements.txt": "flask\ngunicorn\n",
    }
    assert web(files) == 'gunicorn "app:create_app()"'


def test_a_package_called_src_is_not_taken_for_a_directory_of_packages() -> None:
    made = "from .setup import create_application\napp = create_application()\n"
    poetry = '[tool.poetry]\nname = "x"\npackages = [{include = "src"}]\n[tool.poetry.dependencies]\nfastapi = "*"\n'
    files = {"src/app/main.py": made, "pyproject.toml": f"{poetry}[build-system]\nrequires = []\n"}
    assert web(files) == "uvicorn src.app.main:app"


def test_the_readme_says_which_of_several_programs_is_the_app() -> None:
    page = "import streamlit as st\n"
    files = {"Chat.py": page, "Other.py": page, "chat_test.py": page, "requirements.txt": "streamlit\n"}
    run = "streamlit run Chat.py --server.port $PORT --server.address 127.0.0.1 --server.headless true"
    assert web({**files, "README.md": "Try `streamlit run Chat.py`.\n"}) == run
    with pytest.raises(Rejected):
        web({**files, "README.md": "`streamlit run Chat.py` or `streamlit run Other.py`\n"})
    assert web({name: text for name, text in files.items() if name != "Other.py"}) == run


def test_django_makes_the_tables_of_a_database_that_is_of_the_apps_own_data() -> None:
    settings = 'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}\n'
    files = {**DJANGO, "manage.py": DJANGO["manage.py"] + "import django\n", "requirements.txt": "django\n"}
    manifest = read_manifest(FakeTree({**files, "blog/settings.py": settings}))
    assert manifest.release_command == "python manage.py migrate --noinput"
    assert any("`release: python manage.py migrate --noinput`" in told for told in manifest.notices)
    own = {**files, "blog/settings.py": settings, "shipit.yml": "release: echo\n"}
    assert read_manifest(FakeTree(own)).release_command == "echo"
    for elsewhere in (
        settings.replace("sqlite3", "postgresql"),
        "import dj_database_url\nDATABASES = {'default': dj_database_url.config(default='sqlite3:///' + str(BASE_DIR / 'db.sqlite3'))}\n",
        f"if os.environ.get('DB_HOST'):\n    DATABASES = {{'ENGINE': 'django.db.backends.mysql'}}\n{settings}",
        settings.replace('"django.db.backends.sqlite3"', 'os.environ.get("ENGINE", "django.db.backends.sqlite3")'),
    ):
        assert not read_manifest(FakeTree({**files, "blog/settings.py": elsewhere})).release_command, elsewhere


def test_a_django_project_beside_the_app_is_not_migrated() -> None:
    settings = 'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}\n'
    files = {"main.py": FASTAPI, "requirements.txt": "fastapi\nuvicorn\n", "example/manage.py": "import django\n",
             "example/example/settings.py": settings}  # fmt: skip
    manifest = read_manifest(FakeTree(files))
    assert manifest.processes[0].command == "uvicorn main:api" and not manifest.release_command
