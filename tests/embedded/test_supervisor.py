"""The embedded engine, where systemd is not running: the same promises, and nothing that runs twice."""

from __future__ import annotations

import json
import re
import time

import pytest
from lab.background import wait_for
from lab.base import REPO
from lab.client import Client, Repo, fetch
from lab.host import Box

APP = (REPO / "examples/hello/app.py").read_text()
EXAMPLE = {path.name: path.read_text() for path in (REPO / "examples/hello").iterdir() if path.is_file()}
START = ("shipit-supervisord", "start")


@pytest.fixture
def serving(box: Box, client: Client) -> Repo:
    """The app hello, live on a box."""
    box.run(*START)
    repo = client.repo("hello", EXAMPLE)
    assert repo.push().code == 0
    return repo


def processes(box: Box) -> int:
    """How many gunicorn masters and workers run as the app."""
    return len(box.sh("pgrep -u app-hello || true").out.split())


def answers(client: Client) -> bool:
    try:
        return client.get("hello", timeout=2).status == 200
    except OSError:
        return False


def test_a_release_goes_live_comes_back_and_a_broken_one_does_not(serving: Repo, client: Client) -> None:
    with client.load("hello") as load:
        serving.commit({"app.py": APP.replace("Hello from", "Changed by")})
        assert serving.push().code == 0
        load.wait_for_body("Changed by")
        serving.commit({"app.py": "raise RuntimeError('broken on purpose')\n"})
        failed = serving.push()
        assert failed.code != 0 and "broken on purpose" in failed.text and "v2 is still serving" in failed.text
        assert client.ssh("rollback", "hello").ok
        load.wait_for_body("Hello from shipit (v4)")
        report = load.stop()
    assert report.failed == 0 and report.total > 100, report


def test_a_program_behind_a_shell_gets_sigterm_and_one_whose_database_is_away_comes_back(
    client: Client, box: Box
) -> None:
    worker = (
        "import os, signal, sys, time\n"
        "data = os.environ['DATA_DIR']\n"
        "def term(*_): time.sleep(0.5); open(data + '/finished', 'w').close(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, term)\n"
        "open(data + '/up', 'w').close()\n"
        "while not os.path.exists(data + '/gone'): time.sleep(0.05)\n"
    )
    box.run(*START)
    procfile = EXAMPLE["Procfile"] + "worker: python3 worker.py; true\n"
    tree = {**EXAMPLE, "Procfile": procfile, "worker.py": worker}
    counts = "processes: {worker: {count: 1, healthcheck: {settle: 1}}}\n"
    assert client.repo("shell", {**tree, "shipit.yml": counts}).push().code == 0
    data = "/var/lib/shipit/apps/shell/data"
    assert client.ssh("ps:restart", "shell", "worker").ok
    assert box.exists(f"{data}/finished")
    box.sh(f"touch {data}/gone")

    def ended() -> int:
        rows = json.loads(client.ssh("ps", "shell", "--format", "json").out)
        return int(next(row["restarts"] for row in rows if row["process"] == "worker.1"))

    # supervisord alone gives up at some time, or waits longer each time.
    wait_for("it to end often", lambda: ended() >= 5, timeout=40)
    box.sh(f"rm {data}/gone {data}/up")
    wait_for("it to come back", lambda: box.exists(f"{data}/up"), timeout=20)
    assert client.ssh("apps:destroy", "shell", "--force").ok


def test_apps_can_have_a_file_system_of_their_own_for_their_sockets(client: Client, box: Box) -> None:
    documented = re.search(r"--tmpfs /run/shipit:(\S+)", (REPO / "docs/installing.md").read_text())
    assert documented
    box.sh(f"mkdir -p /run/shipit && mount -t tmpfs -o {documented[1]} shipit /run/shipit")
    box.run(*START)
    greedy = client.repo("greedy", EXAMPLE)
    assert greedy.push().code == 0
    fill = "head -c 4M /dev/zero > /run/shipit/greedy/fill; for n in $(seq 2000); do mkdir /run/shipit/greedy/$n; done"

    def taken() -> tuple[int, int]:
        used, inodes = box.sh("df --output=used,iused /run | tail -1").out.split()
        return int(used), int(inodes)

    used, inodes = taken()
    assert "No space left" in client.ssh("run", "greedy", "--", "sh", "-c", f"'{fill}'").text
    assert taken()[0] < used + 1000 and taken()[1] < inodes + 1000, "it is in /run itself"
    assert client.repo("hello", EXAMPLE).push().code == 0, "what others need takes no space"
    assert greedy.commit() and greedy.push().code == 0
    told = box.run("shipit", "doctor", check=False).out
    assert "the apps' sockets have a file system of their own" in told and "/run/shipit has no space left" in told


def test_a_killed_supervisord_comes_back_and_nothing_runs_twice(serving: Repo, client: Client, box: Box) -> None:
    before = processes(box)
    box.sh("kill -KILL $(cat /run/shipit/supervisord.pid)")
    wait_for("the app to answer", lambda: answers(client))
    wait_for("as many processes as before", lambda: processes(box) == before)
    time.sleep(2)
    assert processes(box) == before
    assert len(box.sh("pgrep -x nginx -P $(cat /run/shipit/supervisord.pid)").out.split()) == 1
    serving.commit()
    assert serving.push().code == 0


def test_a_killed_nginx_comes_back_although_its_workers_keep_the_port(serving: Repo, client: Client, box: Box) -> None:
    master = box.read("/run/nginx.pid").strip()
    workers = box.sh(f"pgrep -P {master}").out.split()
    box.run("kill", "-9", master)
    assert box.sh(f"ps -o pid= -p {','.join(workers)}").out.split() == workers, (
        "they live on, without anybody to reload them"
    )
    wait_for("another master", lambda: box.read("/run/nginx.pid").strip() not in ("", master))
    wait_for("an answer", lambda: answers(client))
    wait_for("the end of the old workers", lambda: not box.sh(f"ps -o pid= -p {','.join(workers)} || true").out.split())
    serving.commit({"app.py": APP.replace("Hello from", "Changed by")})
    assert serving.push().code == 0, "nginx is told of a release"
    wait_for("the new release", lambda: "Changed by" in client.get("hello").body)
    assert "share a file system with /run, which an app can fill" in box.run("shipit", "doctor").out


def test_a_killed_keeper_and_supervisord_leave_nothing_that_runs_twice(serving: Repo, client: Client, box: Box) -> None:
    before = processes(box)
    box.sh("kill -KILL $(cat /run/shipit/keeper.lock) $(cat /run/shipit/supervisord.pid)")
    assert processes(box) == before, "the orphans still serve"
    box.run(*START)
    wait_for("the app to answer", lambda: answers(client))
    wait_for("as many processes as before", lambda: processes(box) == before)
    serving.commit()
    assert serving.push().code == 0


def test_a_container_that_is_started_again_serves_what_was_live(serving: Repo, client: Client, box: Box) -> None:
    serving.commit({"app.py": APP.replace("Hello from", "Changed by")})
    assert serving.push().code == 0
    box.run_as_main("shipit-supervisord", "run")
    wait_for("the app to answer", lambda: answers(client))
    assert "Changed by shipit (v2)" in client.get("hello").body
    box.reboot()
    wait_for("the app to answer", lambda: answers(client))
    serving.commit()
    assert serving.push().code == 0


def test_stopping_it_stops_everything_and_starting_it_brings_the_apps_back(
    serving: Repo, client: Client, box: Box
) -> None:
    box.run("shipit-supervisord", "stop")
    assert processes(box) == 0
    assert box.sh("pgrep -x nginx; pgrep -f supervisord", check=False).out == ""
    assert box.run("shipit-supervisord", "status", check=False).code == 3
    box.run(*START)
    box.run(*START)
    wait_for("the app to answer", lambda: answers(client))


def test_a_build_leaves_no_process_behind(box: Box, client: Client) -> None:
    box.run(*START)
    files = {
        "pyproject.toml": '[project]\nname = "x"\nversion = "1"\n[build-system]\nrequires = ["setuptools"]\n',
        "setup.py": (
            "import os, subprocess\n"
            "subprocess.Popen(['sleep', '4321'], start_new_session=True, stdin=subprocess.DEVNULL,\n"
            "                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
            "from setuptools import setup\nsetup(name='x', py_modules=[])\n"
        ),
        "Procfile": "web: python -m http.server $PORT\n",
    }
    pushed = client.repo("left", files).push()
    assert pushed.code == 0, pushed
    assert box.sh("pgrep -f 'sleep 4321'", check=False).out == ""
    assert client.get("left").status == 200, "$PORT works too"


def test_a_one_off_command_has_the_apps_environment_and_its_exit_code(serving: Repo, client: Client, box: Box) -> None:
    assert client.ssh("config:set", "hello", "GREETING", "-", input='it\'s "here" %d').ok
    said = client.ssh("run", "hello", "--", "sh", "-c", "'echo $GREETING; id -un; exit 7'")
    assert said.code == 7, said
    assert "it's" in said.out and "app-hello" in said.out
    on_terminal = client.ssh("run", "hello", "--", "tty", tty=True)
    assert "/dev/pts/" in on_terminal.out, on_terminal
    # What it takes is counted here, too.
    (web,) = json.loads(client.ssh("resource:report", "hello", "--format", "json").out)
    assert re.fullmatch("[0-9]+% of the app's", web["cpu"]) and int(web["tasks"].split()[0]) >= 2, web
    assert client.ssh("run", "hello", "--", "sh", "-c", "'head -c 9M /dev/zero > $DATA_DIR/big'").ok
    assert client.ssh("storage:quota", "hello", "10M").ok
    held = json.loads(client.ssh("storage:quota", "hello", "--format", "json").out)
    assert held["level"] == "nearly" and held["percent"] >= 90, held


def test_destroying_an_app_leaves_nothing_of_it(serving: Repo, client: Client, box: Box) -> None:
    assert client.ssh("apps:destroy", "hello", "--force").ok
    assert not box.exists("/var/log/shipit/hello") and not box.exists("/var/lib/shipit/apps/hello")
    assert "hello" not in box.sh("ls /etc/shipit/supervisor; getent passwd").out
    assert fetch(box.ip, headers={"Host": f"hello.{client.domain()}"}).status == 404
