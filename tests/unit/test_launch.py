"""The launcher as the units start it: `python -IS libexec/launch`, below a directory of the test's own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.inside import front
from receiver.model import Check, CheckKind, Listen, ProcessType, Release, Source, Status
from receiver.names import AppName, Oid, TypeName
from receiver.paths import Layout
from receiver.records import encode

LAUNCH = Path(__file__).resolve().parents[2] / "libexec/launch"
BLOG = AppName("blog")
COMMIT = Oid("ab" * 20)
RUN = "cd" * 20
SHOW = "env -0"
SERVER = (
    "import http.server, os, time; time.sleep(float(os.environ.get('LATE', '0')))\n"
    "http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()"
)


class Place:
    """One release below a directory, and what is running of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.layout = root, Layout(root)
        self.paths = self.layout.app(BLOG)
        self.release = self.paths.release(8)
        self.started: list[subprocess.Popen[bytes]] = []
        for path in (self.release.dir, self.paths.runs, self.paths.data, self.paths.config, self.paths.sockets):
            path.mkdir(parents=True)
        (self.paths.release(7).slug / ".venv/bin").mkdir(parents=True)

    def write(self, command: str, listen: Listen = Listen.NONE, config: dict[str, str] | None = None) -> None:
        web = ProcessType(TypeName("web"), command, listen, Check(CheckKind.COMMAND, command=command))
        release = Release(
            app=BLOG, number=8, source=Source.CONFIG, status=Status.STARTING, by="a", created=0.0, slug=7, environment=7,
            commit=COMMIT, processes=(web,), formation=((web.type, 1),), release_command=command,
        )  # fmt: skip
        self.release.record.write_bytes(encode(release))
        self.release.config.write_text(json.dumps(config or {}))
        (self.paths.runs / f"{RUN}.json").write_text(json.dumps({"command": command}))

    def start(self, *words: str, **given: Any) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-IS", str(LAUNCH), f"--root={self.root}", *words]
        env = {"CREDENTIALS_DIRECTORY": str(self.credentials()), "EVIL": "1", "LD_LIBRARY_PATH": "/x"}
        child = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, **given)
        self.started.append(child)
        return child

    def credentials(self) -> Path:
        """As systemd passes config/vN.json on to a job (LoadCredential)."""
        path = self.root / "credentials"
        path.mkdir(exist_ok=True)
        (path / "config").write_bytes(self.release.config.read_bytes())
        return path

    def environment(self, *words: str) -> dict[str, str]:
        out, _ = self.start(*words).communicate(timeout=20)
        return dict(line.split("=", 1) for line in out.decode().split("\0") if line)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for child in made.started:
        child.kill()
        child.communicate()


PROCESS = ("blog", "8", "web", "1")


def test_config_vars_on_standard_input_are_all_that_was_there(place: Place) -> None:
    # More than a pipe may hold, each less than an argument of execve(2) may have.
    long = {f"LONG{number}": "x" * 100_000 for number in range(9)}
    place.write("env -0; cat; stat -Lc /dev/null=%t:%T /dev/stdin", config={**long, "A": "1"})
    with place.release.config.open() as file:
        child = place.start("--stdin", *PROCESS, stdin=file)
        out = child.communicate(timeout=20)[0].decode()
    told = dict(line.split("=", 1) for line in out.split("\0"))
    assert (told["A"], told["/dev/null"]) == ("1", "1:3\n"), "the command finds nothing to read"
    assert {name: told[name] for name in long} == long


def test_a_process_finds_its_config_vars_and_what_shipit_promises_and_nothing_else(place: Place) -> None:
    place.write(SHOW, config={"GREETING": "hello", "LANG": "de_DE.UTF-8"})
    slug, data = place.paths.release(7).slug, place.paths.data
    found = place.environment(*PROCESS)
    path = found.pop("PATH").split(":")
    assert path[0] == f"{slug}/.venv/bin" and "/usr/bin" in path
    for name in ("PWD", "SHLVL", "_"):  # bash's own
        found.pop(name, None)
    assert found == {
        "GREETING": "hello", "LANG": "de_DE.UTF-8", "HOME": str(data), "DATA_DIR": str(data), "USER": "app-blog",
        "LOGNAME": "app-blog", "PYTHONUNBUFFERED": "1", "VIRTUAL_ENV": f"{slug}/.venv", "SHIPIT_APP": "blog",
        "SHIPIT_RELEASE": "v8", "SHIPIT_COMMIT": COMMIT, "SHIPIT_PROCESS": "web.1",
    }  # fmt: skip


def test_a_process_works_in_the_slug_that_its_release_shares(place: Place) -> None:
    place.write("pwd")
    out, _ = place.start(*PROCESS).communicate(timeout=20)
    assert out.decode().strip() == str(place.paths.release(7).slug)


CORPUS = {
    "NEWLINE": "a\nb\n", "PEM": "-----BEGIN KEY-----\nabc==\n-----END KEY-----\n", "QUOTES": "'\"`", "PERCENT": "%i%%",
    "DOLLAR": "$HOME ${X} $(id)", "BACKSLASH": "\\n \\", "HASH": "# no comment", "SPACES": "  a  ", "EMPTY": "",
    "UNICODE": "héllo ✓ \U0001f680", "SEMICOLON": "; id", "CR": "a\rb", "TAB": "\t", "EQUALS": "a=b=c", "LONG": "x" * 100_000,
}  # fmt: skip


def test_every_value_arrives_as_it_was_set(place: Place) -> None:
    place.write(SHOW, config=CORPUS)
    found = place.environment(*PROCESS)
    assert {name: found.get(name) for name in CORPUS} == CORPUS


def test_a_config_var_cannot_stand_in_for_what_shipit_says(place: Place) -> None:
    place.write(SHOW, config={"SHIPIT_APP": "other", "HOME": "/root", "PATH": "/evil"})
    found = place.environment(*PROCESS)
    assert found["SHIPIT_APP"] == "blog" and found["HOME"] != "/root" and not found["PATH"].startswith("/evil")


@pytest.mark.parametrize(
    "command",
    [
        "printf %s 'a%ib'",
        "printf '%s' \"$SHIPIT_APP\"",
        "printf 'a\\\\b'",
        "printf a; printf b",
        "printf '+!@:-'",
        "! false; printf x",
    ],
)
def test_a_procfile_line_means_what_it_means_to_bash(place: Place, command: str) -> None:
    place.write(command)
    out, _ = place.start(*PROCESS).communicate(timeout=20)
    expected = subprocess.run(["bash", "-c", command], env={"SHIPIT_APP": "blog"}, capture_output=True, check=True)
    assert out == expected.stdout and out


def test_a_process_is_the_command_itself_and_no_launcher_stays(place: Place) -> None:
    place.write("exec sleep 60")
    child = place.start(*PROCESS)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM


def test_a_process_on_a_socket_is_told_it_in_gunicorns_and_uvicorns_way(place: Place) -> None:
    path = place.release.socket(TypeName("web"), 1)
    place.release.run_dir.mkdir()
    path.write_text("a stale one")
    place.write(SHOW, Listen.SOCKET, {"GUNICORN_CMD_ARGS": "--workers 3"})
    found = place.environment(*PROCESS)
    assert found["SOCKET"] == found["UVICORN_UDS"] == str(path) and "PORT" not in found
    assert found["GUNICORN_CMD_ARGS"] == f"--bind=unix:{path} --workers 3"
    assert not path.exists()


def ask(path: Path, timeout: float = 15) -> bytes:
    deadline = time.monotonic() + timeout
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(str(path))
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
                continue
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.makefile("rb").read()


@pytest.mark.parametrize("program", ["systemd-socket-proxyd", "relay"])
def test_a_request_that_comes_before_the_app_listens_on_its_port_waits_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    command = f'exec {sys.executable} -c "{SERVER}"'
    place.write(command, Listen.PORT, {"LATE": "0.7"})
    if program == "relay":
        # As on a machine without systemd's: the same launcher, told that there is none.
        patched = "import sys; sys.path[:0] = [{!r}]\nfrom receiver.inside import front, launch\nfront.PROXYD = ()\n"
        script = patched.format(str(LAUNCH.parents[1])) + "launch.main(sys.argv[1:])"
        argv = [sys.executable, "-IS", "-c", script, f"--root={place.root}", *PROCESS]
        env = {"CREDENTIALS_DIRECTORY": str(place.credentials())}
        place.started.append(subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL))
    elif not any(os.access(found, os.X_OK) for found in front.PROXYD):
        pytest.skip("no systemd on this machine")
    else:
        place.start(*PROCESS, stderr=subprocess.DEVNULL)
    path = place.release.socket(TypeName("web"), 1)
    began = time.monotonic()
    assert b"200 OK" in ask(path)
    assert time.monotonic() - began > 0.5, "it was asked before it listened"
    assert b"200 OK" in ask(path)
    port = int(path.with_suffix(".port").read_text())
    assert port in front.PORTS


def test_the_front_ends_with_its_process(place: Place) -> None:
    place.write(f'exec {sys.executable} -c "{SERVER}"', Listen.PORT)
    child = place.start(*PROCESS, stderr=subprocess.DEVNULL)
    path = place.release.socket(TypeName("web"), 1)
    assert b"200 OK" in ask(path)
    child.kill()
    child.wait()
    deadline = time.monotonic() + 5
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_port_that_another_user_took_ends_the_process_instead_of_sending_it_the_requests(place: Place) -> None:
    # The app listens nowhere; another user's program listens on the port that was chosen for it.
    place.write("echo $PORT; exec sleep 60", Listen.PORT)
    child = place.start(*PROCESS, stderr=subprocess.PIPE)
    assert child.stdout
    port = int(child.stdout.readline())
    os.seteuid(65534)  # a socket belongs to who makes it
    try:
        squatter = socket.create_server(("127.0.0.1", port))
    finally:
        os.seteuid(0)
    with squatter:
        assert child.wait(20) == -signal.SIGTERM
    assert child.stderr and b"was taken by the user 65534" in child.stderr.read()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("kill -PIPE $$", 141),
        ("kill -9 $$", 137),
        ("nosuchcommand", 127),
    ],
)
@pytest.mark.parametrize("words", [("--release", "blog", "8"), (f"--run={RUN}", "blog", "8"), ("--check", *PROCESS)])
def test_a_one_off_command_ends_with_its_own_exit_code(
    place: Place, words: tuple[str, ...], command: str, code: int
) -> None:
    place.write(command)
    assert place.start(*words, stderr=subprocess.DEVNULL).wait(20) == code


def test_a_one_off_command_that_is_told_to_stop_reports_the_signal(place: Place) -> None:
    place.write("echo up; sleep 60")
    child = place.start("--release", "blog", "8", start_new_session=True)
    assert child.stdout and child.stdout.readline() == b"up\n"
    os.killpg(child.pid, signal.SIGTERM)
    assert child.wait(10) == 143


def test_a_command_check_finds_the_process_it_asks(place: Place) -> None:
    place.write(SHOW, Listen.PORT)
    path = place.release.socket(TypeName("web"), 1)
    place.release.run_dir.mkdir()
    path.with_suffix(".port").write_text("20123\n")
    found = place.environment("--check", *PROCESS)
    assert (found["SOCKET"], found["PORT"], found["SHIPIT_PROCESS"]) == (str(path), "20123", "web.1")


@pytest.mark.parametrize("missing", ["parse_float", "array_hook", "_json", "_signal"])
def test_a_python_that_has_other_insides_starts_the_app_all_the_same(missing: str) -> None:
    """What json and signal are made of is CPython's own affair: 3.15 asks its decoder for one name more."""
    away = f"sys.modules['{missing}'] = None" if missing.startswith("_") else f"del launch.Decoder.{missing}"
    first, then = ("", away) if "launch" in away else (away, "")
    if missing == "_signal":
        first = "import signal; " + first  # which is made of it, and here already
    script = f"import sys; {first}\nfrom receiver.inside import launch\n{then}\nprint(launch.parse('{{\"a\": [1.5]}}'), int(launch.SIGPIPE))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "{'a': [1.5]} 13\n", done.stderr


def test_the_launcher_imports_nothing_slow() -> None:
    script = f"import sys; sys.path += [{str(LAUNCH.parents[1])!r}]; import receiver.inside.launch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "typing",
        "json",
        "re",
        "enum",
        "pathlib",
        "subprocess",
        "socket",
        "ctypes",
        "dataclasses",
        "receiver.model",
        "jinja2",
    }
