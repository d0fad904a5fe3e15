"""The parts of the embedded engine that need no supervisord: its files, names, jobs; and install.sh's small decisions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from receiver import settings
from receiver.engines.base import Job
from receiver.engines.embedded import jobs
from receiver.engines.embedded.programs import Name, Program
from receiver.engines.embedded.supervisord import control_socket, write
from receiver.gate import sessions
from receiver.inside import init
from receiver.model import Limits
from receiver.names import app_name
from receiver.paths import Layout
from receiver.setup import places, ports, ssh
from receiver.system import family

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1Zs0C0zqWmJ9Xk0vN1oJ8T1l7Q2b3c4d5e6f7g8h9i"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="jobs change their user; only root can")


def test_a_program_is_written_as_supervisord_reads_it(tmp_path: Path) -> None:
    from supervisor.options import ServerOptions

    program = Program("blog.v8.web.1", "/bin/sh -c 'sleep 9'", tmp_path / "log/web.1.log", boot=False, drain=45)
    layout = Layout(tmp_path)
    layout.supervisor.mkdir(parents=True)
    assert write(layout, program) is True
    assert write(layout, program) is False, "writing it again changes nothing"
    config = tmp_path / "supervisord.conf"
    config.write_text(f"[supervisord]\nnodaemon=true\n[include]\nfiles={layout.supervisor}/*.conf\n")
    options = ServerOptions()
    options.realize(["-c", str(config)])
    (group,) = options.process_group_configs
    (known,) = group.process_configs
    assert (known.name, known.command, known.autostart) == ("blog.v8.web.1", "/bin/sh -c 'sleep 9'", False)
    assert (known.stopwaitsecs, known.stopsignal, known.killasgroup) == (45, signal.SIGTERM, False)
    assert known.stdout_logfile == str(tmp_path / "log/web.1.log") and known.redirect_stderr


def test_the_name_of_a_program_says_which_process_it_is() -> None:
    name = Name.parse("blog-eu.v12.eu-web.3")
    assert name == Name(app_name("blog-eu"), 12, "eu-web", 3)
    assert str(name) == "blog-eu.v12.eu-web.3"
    assert [Name.parse(text) for text in ("shipit-agent", "a.v1.web", "A.v1.web.1", "a.v0.web.1", "a.v1.web.x")] == [
        None
    ] * 5


def test_the_control_socket_fits_into_an_address() -> None:
    assert len(str(control_socket(Layout()))) < 100


def job(tmp_path: Path, *argv: str, timeout: int = 20, config: Path | None = None, name: str = "build-blog-v1") -> Job:
    return Job(
        name=name, app=app_name("blog"), user="nobody", argv=argv, cwd=Path("/"), writable=(), timeout=timeout,
        config=config, limits=Limits(),
    )  # fmt: skip


def run_job(tmp_path: Path, wanted: Job) -> tuple[int, str]:
    """The exit code and what was printed; as in the agent, nothing else is known of the job."""
    layout = Layout(tmp_path)
    layout.run.mkdir(parents=True, exist_ok=True)
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o011)
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        code = jobs.run(layout, wanted, None, out, out, tty=False, memory=0, tasks=0)
    finally:
        os.close(out)
    return code, (tmp_path / "out").read_text()


@as_root
def test_a_job_runs_as_its_user_with_a_clean_environment_and_its_config(tmp_path: Path) -> None:
    config = tmp_path / "v1.json"
    config.write_text('{"A": "secret"}')
    config.chmod(0o600)
    os.environ["CANARY"] = "of the agent"
    code, out = run_job(
        tmp_path,
        job(tmp_path, "/bin/sh", "-c", "id -un; env; cat $CREDENTIALS_DIRECTORY/config; exit 7", config=config),
    )
    del os.environ["CANARY"]
    assert code == 7
    assert out.startswith("nobody\n") and '{"A": "secret"}' in out and "CANARY" not in out
    assert not any((tmp_path / "run/shipit-root/credentials").iterdir()), "the copy of the config vars is gone"


@as_root
def test_a_job_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    code, out = run_job(tmp_path, job(tmp_path, "/nowhere/program"))
    assert code == jobs.NOT_STARTED and "/nowhere/program could not be started" in out


@as_root
def test_a_job_ends_with_the_agent_that_wanted_it(tmp_path: Path) -> None:
    agent = os.fork()
    if agent == 0:
        run_job(tmp_path, job(tmp_path, "/bin/sleep", "76543"))
        os._exit(0)
    look = ["pgrep", "-f", "sleep 76543"]
    deadline = time.monotonic() + 10
    while not subprocess.run(look, capture_output=True, check=False).stdout and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    while subprocess.run(look, capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def test_a_process_whose_name_is_cut_within_a_letter_is_found_like_any_other() -> None:
    # The kernel keeps 15 bytes of a name.
    naming = "open('/proc/self/comm', 'wb').write('приложение'.encode()[:15])\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", naming], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline()
        assert child.pid in family.below(os.getpid()) and child.pid in init._children(os.getpid())
        assert family.work({child.pid})[0] == 1 and sessions.began(child.pid).isdecimal()
        child.kill()


def test_descendants_and_what_they_take_are_found() -> None:
    busy = "import subprocess, time\nwhile time.process_time() < 0.2: pass\nsubprocess.run(['sleep', '20'])"
    child = subprocess.Popen([sys.executable, "-c", busy])
    try:
        deadline = time.monotonic() + 10
        while len(found := family.below(child.pid)) != 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert found <= family.of_users([os.getuid()])
        assert family.memory({child.pid} | found) > 2**20
        threads, seconds = family.work({child.pid} | found)
        assert threads == 2 and 0.1 < seconds < 20
        assert family.work({2**30}) == (0, 0.0) == family.work(())
    finally:
        family.kill(family.below(child.pid) | {child.pid})
        child.wait()


def test_what_runs_with_a_mark_in_its_environment_is_found() -> None:
    with subprocess.Popen(["sleep", "20"], env={"MARK_A": "1", "MARK_B": "2"}) as child:
        time.sleep(0.1)
        assert child.pid in family.with_environment(["MARK_A=1", "MARK_B=2"])
        assert child.pid not in family.with_environment(["MARK_A=1", "MARK_B=3"])
        child.kill()


def test_one_line_of_the_settings_changes_and_nothing_else() -> None:
    text = "# mine\ndomain: a.example  # old\nkeep: 9\nbuild_environment:\n  domain: x\n"
    assert settings.with_line(text, "domain", "b.example") == text.replace(
        "domain: a.example  # old", "domain: b.example"
    )
    assert settings.with_line(text, "http_port", 8080) == text + "http_port: 8080\n"


def test_the_first_settings_are_read_back_as_they_were_meant() -> None:
    import yaml

    site = {"NO_PROXY": 'a,"b": #c', "SSL_CERT_FILE": "/etc/x.pem"}
    known = settings.parse(yaml.safe_load(places.fresh_settings({"domain": "a.example", "ssh_port": 2222}, site)), "x")
    assert (known.domain, known.ssh_port, known.build_environment) == ("a.example", 2222, site)


@pytest.mark.parametrize(
    ("comment", "name"),
    [
        ("alice@laptop", "alice-laptop"),
        ("", "admin"),
        ("Ann Öl <a@b>", "ann-l-a-b"),
        ("007", "admin-007"),
        ("x" * 99, "x" * 28),
    ],
)
def test_a_keys_name_comes_from_its_comment(comment: str, name: str) -> None:
    found = ssh.key_names(f"{KEY} {comment}")
    assert [next(found), next(found)] == [name, f"{name}-2"]


def test_who_listens_on_a_port_is_known() -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert ports.listener(port) in (None, ports.Listener(0, ""))
        server.listen()
        assert ports.listener(port) == ports.Listener(os.getpid(), Path("/proc/self/comm").read_text().strip())
        assert ports.free_port(port) > port


def test_nginx_and_its_user_are_found_in_the_configuration(tmp_path: Path) -> None:
    from receiver.setup import accounts

    (tmp_path / "etc/nginx").mkdir(parents=True)
    assert accounts.nginx_user(Layout(tmp_path)) == "www-data"
    (tmp_path / "etc/nginx/nginx.conf").write_text("# user nobody;\nuser nginx nginx;\n")
    assert accounts.nginx_user(Layout(tmp_path)) == "nginx"
