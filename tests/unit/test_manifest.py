from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import FakeTree

from receiver.errors import Rejected
from receiver.manifest.command import listen_mode
from receiver.model import Check, CheckKind, Limits, Listen
from receiver.names import build_may_see
from receiver.runtimes.python import command
from receiver.runtimes.read import read_manifest


def refused(files: dict[str, str]) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read_manifest(FakeTree(files))
    return caught.value


def test_web_runs_once_and_everything_else_waits_to_be_scaled() -> None:
    manifest = read_manifest(FakeTree({"Procfile": "web: x\nworker: y\nrelease: z\n"}))
    assert manifest.formation == (("web", 1), ("worker", 0)) and manifest.release_command == "z"


def test_an_app_of_which_nothing_would_run_says_so() -> None:
    assert "scale one: worker=1" in read_manifest(FakeTree({"Procfile": "worker: y\n"})).notices[0]


def test_shipit_yml_wins_over_app_json() -> None:
    files = {
        "Procfile": "web: x\nworker: y\n",
        "app.json": '{"formation": {"web": {"quantity": 3}, "worker": {"quantity": 1}}}',
        "shipit.yml": "processes: {web: {count: 2}}",
    }
    assert read_manifest(FakeTree(files)).formation == (("web", 2), ("worker", 1))


def test_predeploy_and_release_both_run_and_the_first_failure_counts() -> None:
    import subprocess

    files = {
        "Procfile": "web: x\nrelease: echo two # b",
        "app.json": '{"scripts": {"dokku": {"predeploy": "echo one; false"}}}',
    }
    both = read_manifest(FakeTree(files)).release_command
    done = subprocess.run(["bash", "-c", both], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("one\n", 1)
    done = subprocess.run(["bash", "-c", both.replace("false", "true # a")], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("one\ntwo\n", 0)


def test_shipit_ymls_release_command_is_the_only_one() -> None:
    files = {"Procfile": "web: x\nrelease: a", "shipit.yml": "release: b"}
    assert read_manifest(FakeTree(files)).release_command == "b"


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("gunicorn app:app", Listen.SOCKET),
        ("exec gunicorn -w 4 app:app", Listen.SOCKET),
        ("FOO=1 python -m gunicorn app:app", Listen.SOCKET),
        (".venv/bin/uvicorn --host 0.0.0.0 app:app", Listen.SOCKET),
        ("cd src && gunicorn app:app", Listen.SOCKET),
        ("newrelic-admin run-program gunicorn app:app", Listen.SOCKET),
        ("uv run gunicorn app:app", Listen.SOCKET),
        ("gunicorn --reuse-port app:app", Listen.PORT),
        ("gunicorn -c own/conf.py app:app", Listen.PORT),
        ("gunicorn --config=file:./own/conf.py app:app", Listen.PORT),
        ("gunicorn -b 0.0.0.0:$PORT app:app", Listen.PORT),
        ("gunicorn --bind=:${PORT:-8000} app:app", Listen.PORT),
        ("gunicorn -b unix:$SOCKET app:app", Listen.SOCKET),
        ("gunicorn app:app & ./other", Listen.PORT),
        ("python app.py", Listen.PORT),
        ("node server.js # $PORTAL", Listen.PORT),
        ("granian --uds $SOCKET app", Listen.SOCKET),
        ("echo 'unbalanced", Listen.PORT),
    ],
)
def test_where_web_listens_is_read_from_its_command(text: str, listen: Listen) -> None:
    files = {"Procfile": f"web: {text}", "own/conf.py": "bind = 'x'\nreuse_port = not DEBUG\n"}
    files["gunicorn.conf.py"] = "bind = ':' + os.environ['PORT']\nreuse_port = False\n"
    assert read_manifest(FakeTree(files)).processes[0].listen is listen


def test_other_process_types_listen_only_when_told() -> None:
    files = {
        "Procfile": "web: a\nworker: gunicorn x\nadmin: gunicorn y",
        "shipit.yml": "processes: {admin: {listen: socket}}",
    }
    assert [p.listen for p in read_manifest(FakeTree(files)).processes] == [Listen.PORT, Listen.NONE, Listen.SOCKET]


@pytest.mark.parametrize("address", ["-b 0.0.0.0:8000", "-b:5000", "--bind=unix:/tmp/x.sock", "--bind 127.0.0.1"])
def test_an_address_where_no_request_comes_is_refused(address: str) -> None:
    failure = refused({"Procfile": f"\nweb: gunicorn {address} app:app"})
    assert failure.message.startswith("Procfile:2: gunicorn listens on") and "Leave the address out" in failure.hint


def test_a_runner_is_left_out_because_the_environment_is_on_the_path() -> None:
    files = {
        "Procfile": "web: uv run --no-sync gunicorn app:app\nrelease: poetry run ./migrate\nworker: uv run --with x y"
    }
    manifest = read_manifest(FakeTree(files))
    assert [p.command for p in manifest.processes] == ["gunicorn app:app", "uv run --with x y"]
    assert manifest.release_command == "./migrate" and len(manifest.notices) == 2


def test_web_is_asked_for_its_first_page_and_others_must_stay_up() -> None:
    web, worker = read_manifest(FakeTree({"Procfile": "web: x\nworker: y\n"})).processes
    assert (web.check, worker.check) == (Check(CheckKind.HTTP), Check(CheckKind.UPTIME))


@pytest.mark.parametrize(
    ("said", "check"),
    [
        ("{path: /up, status: 204}", Check(CheckKind.HTTP, path="/up", status=204)),
        ("{timeout: 5}", Check(CheckKind.HTTP, timeout=5)),
        ("{tcp: true}", Check(CheckKind.TCP)),
        ("{command: ./ok}", Check(CheckKind.COMMAND, command="./ok")),
        ("{notify: true, timeout: 9}", Check(CheckKind.NOTIFY, timeout=9)),
        ("{settle: 7}", Check(CheckKind.UPTIME, settle=7)),
    ],
)
def test_a_healthcheck_is_what_shipit_yml_says(said: str, check: Check) -> None:
    files = {"Procfile": "web: x", "shipit.yml": f"processes: {{web: {{healthcheck: {said}}}}}"}
    assert read_manifest(FakeTree(files)).processes[0].check == check


def test_shipit_yml_refines_app_jsons_check_and_replaces_it_by_another_kind() -> None:
    dokku = '{"healthchecks": {"web": [{"path": "/up", "content": "ok"}]}}'
    files = {"Procfile": "web: x", "app.json": dokku, "shipit.yml": "processes: {web: {healthcheck: {timeout: 5}}}"}
    assert read_manifest(FakeTree(files)).processes[0].check == Check(CheckKind.HTTP, "/up", content="ok", timeout=5)
    files["shipit.yml"] = "processes: {web: {healthcheck: {tcp: true}}}"
    assert read_manifest(FakeTree(files)).processes[0].check == Check(CheckKind.TCP)


def test_a_check_that_cannot_ask_is_refused() -> None:
    files = {"Procfile": "worker: x", "shipit.yml": "processes:\n  worker:\n    healthcheck: {path: /}\n"}
    assert refused(files).message == "shipit.yml:3: a path check of worker, which does not listen."


def test_settings_for_a_type_that_is_not_there_are_refused_with_the_near_one() -> None:
    files = {"Procfile": "web: x\nworker: y\n", "shipit.yml": "\nprocesses:\n  workers: {count: 1}\n"}
    assert refused(files).message == "shipit.yml:3: the Procfile has no line for 'workers'. Did you mean 'worker'?"


def test_limits_and_drain_arrive() -> None:
    files = {"Procfile": "web: x", "shipit.yml": "processes: {web: {memory: 1G, cpu: 50%, tasks: 9, drain: 0}}"}
    web = read_manifest(FakeTree(files)).processes[0]
    assert (web.limits, web.drain) == (Limits(1024, 50, 9), 0)


def test_wsgi_without_any_requirements_is_refused_and_without_gunicorn_told() -> None:
    assert "gunicorn" in refused({"Procfile": "wsgi: app:app", "app.py": ""}).message
    quiet = read_manifest(FakeTree({"Procfile": "wsgi: app:app", "requirements.txt": "gunicorn"}))
    told = read_manifest(FakeTree({"Procfile": "wsgi: app:app", "requirements.txt": "flask"}))
    assert not quiet.notices and "Add gunicorn to requirements.txt" in told.notices[0]


def test_a_root_makes_a_directory_the_whole_app() -> None:
    files = {
        "Procfile": "web: wrong", "api/Procfile": "web: right", "api/.python-version": "3.12\n",
        "shipit.yml": "build: {root: api}",
    }  # fmt: skip
    manifest = read_manifest(FakeTree(files))
    assert (manifest.processes[0].command, manifest.root, manifest.version("python")) == ("right", "api", "3.12")


def test_a_root_that_is_not_there_is_refused() -> None:
    assert "build.root names 'api'" in refused({"Procfile": "web: x", "shipit.yml": "build: {root: api}"}).message


@pytest.mark.parametrize("path", [".venv/bin/python", ".python/x"])
def test_a_committed_environment_is_refused(path: str) -> None:
    assert "made by the build" in refused({"Procfile": "web: x", path: ""}).message
    read_manifest(FakeTree({"Procfile": "web: x", ".python-version": "3.11"}))


@pytest.mark.parametrize(
    ("files", "python"),
    [
        ({".python-version": "# ours\n3.12.4\n3.11\n"}, "3.12.4"),
        ({"runtime.txt": "python-3.11.7\n"}, "3.11.7"),
        ({".python-version": "pypy3.10\n"}, "pypy3.10"),
        ({"pyproject.toml": '[project]\nname="x"\nrequires-python = ">=3.10"\n'}, ">=3.10"),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.10"\n'}, ">=3.10,<4"),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython = "~3.10.2"\n'}, ">=3.10.2,<3.11"),
        ({".python-version": "3.12", "pyproject.toml": '[project]\nrequires-python = ">=3.10"\n'}, "3.12"),
        ({".python-version": "3.12", "shipit.yml": "python: 3.13"}, "3.13"),
        ({".python-version": "3.11.7", "runtime.txt": "python-3.11.7"}, "3.11.7"),
        ({}, ""),
    ],
)
def test_the_wanted_python_is_found(files: dict[str, str], python: str) -> None:
    assert read_manifest(FakeTree({"Procfile": "web: x", **files})).version("python") == python


def test_files_that_want_different_pythons_are_refused() -> None:
    assert "wants Python" in refused(
        {"Procfile": "web: x", ".python-version": "3.11", "runtime.txt": "3.12"}
    ).message.replace("It wants", "wants")


def test_of_two_pythons_of_which_one_only_says_more_that_one_is_taken() -> None:
    for said, more in (("3.12", "python-3.12.1"), ("3.12.1", "python-3.12")):
        files = {"Procfile": "web: x", ".python-version": said, "runtime.txt": more}
        assert read_manifest(FakeTree(files)).version("python") == "3.12.1"
    assert "wants Python" in refused({"Procfile": "web: x", ".python-version": "3.1", "runtime.txt": "3.12"}).message


def test_a_virtual_environments_name_is_not_a_python_version() -> None:
    assert refused({"Procfile": "web: x", ".python-version": "\nmyproject\n"}).message.startswith(".python-version:2: ")


def test_a_build_sees_where_packages_come_from_and_what_is_listed() -> None:
    assert [build_may_see(name, ("NPM_TOKEN",)) for name in ("UV_INDEX_URL", "PIP_X", "NPM_TOKEN", "SECRET_KEY")] == [
        True, True, True, False,
    ]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_no_content_of_the_files_brings_anything_but_an_answer_or_rejected(a: bytes, b: bytes, c: bytes) -> None:
    for files in ({"Procfile": a}, {"Procfile": b"web: x", "shipit.yml": b}, {"Procfile": b"web: x", "app.json": c}):
        try:
            read_manifest(FakeTree(files))
        except Rejected as failure:
            assert failure.message.isprintable() or "\n" in failure.message


@settings(deadline=None)
@given(st.text(max_size=100))
def test_any_command_has_a_listen_mode(text: str) -> None:
    assert listen_mode(text, command.server(text)) in Listen


@pytest.mark.parametrize("text", ["[project\n", "x = 1\nx = 2\n", "a = " + "[" * 5000, "\n\xff"])
def test_a_pyproject_that_is_not_toml_is_told(text: str) -> None:
    assert refused({"Procfile": "web: x", "pyproject.toml": text}).message.startswith("pyproject.toml")


def test_two_lock_files_are_refused_before_anything_is_received() -> None:
    assert "uv.lock and poetry.lock" in refused({"Procfile": "web: x", "uv.lock": "", "poetry.lock": ""}).message
