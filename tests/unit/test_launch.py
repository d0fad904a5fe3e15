"""The launcher as the units start it: `python -IS libexec/launch`, below a directory of the test's own."""

from __future__ import annotations

import contextlib
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

from receiver.inside import front, init, launch
from receiver.model import Change, Check, CheckKind, Listen, Origin, ProcessEnv, ProcessType, Release, Status
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

    def write(
        self,
        command: str,
        listen: Listen = Listen.NONE,
        config: dict[str, str] | None = None,
        process_env: ProcessEnv | None = None,
    ) -> None:
        web = ProcessType(TypeName("web"), command, listen, Check(CheckKind.COMMAND, command=command))
        release = Release(
            app=BLOG, number=8, change=Change.CONFIG, status=Status.STARTING, by="a", created=0.0, slug=7, environment=7,
            origin=Origin("git", COMMIT), processes=(web,), formation=((web.type, 1),), release_command=command,
            process_env=process_env,
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
    assert found["SOCKET"] == found["UVICORN_UDS"] == str(path)
    assert int(found["PORT"]) in front.PORTS, "what reads it finds one, as with other receivers"
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


@pytest.mark.parametrize("address", ["127.0.0.1", "::", "::1"])
@pytest.mark.parametrize("program", ["systemd-socket-proxyd", "relay"])
def test_a_request_that_comes_before_the_app_listens_on_its_port_waits_for_it(
    place: Place, program: str, address: str
) -> None:
    server = SERVER.replace("('127.0.0.1'", f"('{address}'").replace("http.server.HTTPServer", "S")
    family = "AF_INET6" if ":" in address else "AF_INET"
    make = f"class S(http.server.HTTPServer): address_family = socket.{family}\n"
    server = server.replace("\n", "\n" + make).replace("import http.server,", "import http.server, socket,")
    place.write(f'exec {sys.executable} -c "{server}"', Listen.PORT, {"LATE": "0.7"})
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
    port = int(str(path.with_suffix(".port").readlink()))
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


# -- behind a shell

PROGRAM = (
    "import os, signal, sys, time\n"
    "def term(*_):\n"
    "    say('term'); time.sleep(0.3); say('done'); sys.exit(0)\n"
    "def say(word): os.write(1, f'{word} {sys.argv[1]}\\n'.encode())\n"
    "signal.signal(signal.SIGTERM, term)\n"
    "if len(sys.argv) > 2 and os.fork() == 0: sys.argv[1] += '-child'\n"
    "say('up')\n"
    "while True: time.sleep(0.05)\n"
)


def stopped(place: Place, command: str, ups: int = 1, code: tuple[int, ...] = (0, 143)) -> list[str]:
    """What the program says from SIGTERM on, which the process of this command gets when the program is up."""
    slug = place.paths.release(7).slug
    (slug / "w.py").write_text(PROGRAM)
    place.write(command.replace("PY", f"{sys.executable} w.py"))
    child = place.start(*PROCESS, stderr=subprocess.DEVNULL, start_new_session=True)
    assert child.stdout
    for _ in range(ups):
        assert child.stdout.readline().startswith(b"up")
    child.send_signal(signal.SIGTERM)
    try:
        assert child.wait(10) in code
        # What a unit's end does to the rest of its control group (KillMode=mixed).
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return child.stdout.read().decode().split("\n")[:-1]


@pytest.mark.parametrize(
    "command",
    ["PY x", "cd . && PY x", "A=1 exec PY x", "PY x 2>&1", "PY x; echo ended", "PY x 2>&1 | cat", "(cd .; PY x)", "bash -c 'PY x; true'",
     "trap 'echo caught' TERM; PY x; true", "trap 'kill $!; wait $!' TERM; PY x & wait $!; true", "trap : EXIT; PY x"],
)  # fmt: skip
def test_a_program_behind_a_shell_gets_sigterm_and_its_time(place: Place, command: str) -> None:
    said = stopped(place, command)
    assert [line for line in said if line in ("term x", "done x")] == ["term x", "done x"], said


def test_a_program_behind_a_script_gets_sigterm_and_its_time(place: Place) -> None:
    script = place.paths.release(7).slug / "start.sh"
    script.write_text(f"#!/bin/sh\necho prepared >&2\n{sys.executable} w.py x\n")
    script.chmod(0o755)
    assert stopped(place, "./start.sh") == ["term x", "done x"]


@pytest.mark.parametrize("command", ["PY x fork; true", "PY x fork"])
def test_the_children_of_a_program_are_left_to_it(place: Place, command: str) -> None:
    assert "term x-child" not in stopped(place, command, ups=2)


@pytest.mark.parametrize(
    ("command", "stays"),
    [
        ("cat", False), ("cat && A=1 cat -x --b='c;d'", False), ("A=1 exec cat > log 2>&1", False), ("cat > log", True), ("cat 2>&1", True), ("exec cat", False), ("cat ${PORT:-80}", False),
        ("sleep 0; exec cat", False), ("env A=1 nice cat", False), ("./direct", False), ("./python", False),
        ("cat; cat", True), ("cat | cat", True), ("cat & wait", True), ("./script", True), ("sh script", True),
        ("while true; do cat; done", True), (". ./script", True), ("! cat", True), ("'./script'", True), ("cat || cat", True),
        ("cat `date`", True), ("it's", True), ("", True),
    ],
)  # fmt: skip
def test_only_a_shell_that_stays_costs_a_process_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, stays: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "script": "#!/usr/bin/env bash\ncat\n", "direct": '#!/bin/sh -e\ndate\nexec cat "$@"\n', "python": "#!/usr/bin/python3\n",
    }.items():  # fmt: skip
        Path(name).write_text(text)
        Path(name).chmod(0o755)
    assert init.stays_above(command, "/usr/bin:/bin") is stays


# -- starting again


def test_a_process_that_ends_again_and_again_is_started_ever_more_slowly_and_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    note = str(tmp_path / "web.1.starts")

    def starts(times: int, up: float) -> list[float]:
        slept.clear()
        pauses = []
        for _ in range(times):
            before = len(slept)
            launch.wait_for_turn(note, "web.1")
            pauses.append(sum(slept[before:]))
            now[0] += pauses[-1] + up
        return pauses

    assert starts(12, up=1.0) == [0, 0, 0, 0, 0, 2, 4, 8, 16, 30, 30, 30]
    assert starts(2000, up=1.0)[-1] == 30, "it is never given up"
    now[0] += 100
    assert starts(3, up=100.0) == [0, 0, 0], "one that stays up begins anew"
    Path(note).write_text("nonsense")
    assert starts(1, up=1.0) == [0]
    launch.wait_for_turn(str(tmp_path / "missing/web.1.starts"), "web.1")


def test_the_record_says_what_the_runtimes_put_into_the_environment(place: Place) -> None:
    told = ProcessEnv(
        path=("bin", "node_modules/.bin"),
        variables=(("HERE", "$SLUG/x"), ("MODE", "production")),
        socket=(("ARGS", "--at=$SOCKET $ARGS"),),
    )
    place.write(SHOW, Listen.SOCKET, {"MODE": "own", "ARGS": "--more"}, told)
    found = place.environment("blog", "v8", "web", "1")
    slug = place.paths.release(7).slug
    assert found["PATH"].startswith(f"{slug}/bin:{slug}/node_modules/.bin:/usr/local/sbin")
    assert (found["HERE"], found["MODE"]) == (f"{slug}/x", "own"), "a config var may say otherwise"
    assert found["ARGS"] == f"--at={found['SOCKET']} --more"
    assert "VIRTUAL_ENV" not in found and "GUNICORN_CMD_ARGS" not in found
