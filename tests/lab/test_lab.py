"""The lab's own tests: if these fail, no verdict of a host test is worth anything."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab import net, snapshot, tree
from lab.background import wait_for
from lab.base import CACHE, CommandFailed, LabError, Result, run
from lab.client import fetch
from lab.host import Box, Host
from lab.load import Load

RESOLVED = "getent hosts deb.debian.org"


@pytest.fixture(scope="module")
def running() -> Iterator[Host]:
    with Host.boot(tree.base_tree("bookworm"), "lab") as machine:
        yield machine


@pytest.mark.host
@pytest.mark.xdist_group("lab")
class TestHost:
    def test_it_runs_a_debian_with_systemd_and_nothing_else(self, running: Host) -> None:
        assert running.state() == "running"
        assert running.failed_units() == []
        for tool in ("sshd", "git", "nginx", "python3"):
            assert not running.sh(f"command -v {tool}", check=False).ok

    def test_a_script_has_a_clean_environment_and_lives_in_the_machine(self, running: Host) -> None:
        said = running.sh("echo $HOME $USER; pwd; cat /proc/self/cgroup; cat; false", input="given", check=False)
        assert said.code == 1
        assert said.out.startswith("root\n", 6)
        assert "\n0::/init.scope\n" in said.out
        assert said.out.endswith("given")
        assert "TERM" not in running.sh("env").out

    def test_a_script_of_another_user(self, running: Host) -> None:
        running.sh("useradd -m someone")
        assert running.sh("id -un; echo $HOME; pwd", user="someone").out.split() == ["someone", *["/home/someone"] * 2]
        with pytest.raises(LabError, match="no user nobody-at-all"):
            running.sh("true", user="nobody-at-all")

    def test_a_failed_script_says_everything_it_said(self, running: Host) -> None:
        with pytest.raises(CommandFailed, match=r"(?s)exit code 3.*to stdout.*to stderr"):
            running.sh("echo to stdout; echo to stderr >&2; exit 3")

    def test_a_script_that_takes_too_long_is_killed_inside_too(self, running: Host) -> None:
        with pytest.raises(CommandFailed, match=r"not done after 0\.5 s"):
            running.sh("echo $$ >/run/too-long; sleep 77", timeout=0.5)
        wait_for("its end", lambda: not running.sh("kill -0 $(cat /run/too-long)", check=False).ok)

    def test_files_go_in_and_come_out(self, running: Host, tmp_path: Path) -> None:
        running.write("/srv/a b/c.txt", "text\n", 0o640)
        assert running.read("/srv/a b/c.txt") == "text\n"
        assert running.sh("stat -c %a '/srv/a b/c.txt'").out == "640\n"
        (tmp_path / "top/sub").mkdir(parents=True)
        (tmp_path / "top/sub/tool").write_text("#!/bin/sh\n")
        (tmp_path / "top/sub/tool").chmod(0o755)
        running.put(tmp_path / "top", "/opt/renamed")
        assert running.sh("stat -c '%a %U' /opt/renamed/sub/tool").out == "755 root\n"

    def test_it_reaches_the_outside(self, running: Host) -> None:
        assert running.sh(RESOLVED).ok
        assert running.sh("apt-get update", timeout=60).ok

    def test_a_background_script(self, running: Host) -> None:
        background = running.start("echo one; read word; echo $word")
        assert background.wait(10) == Result(0, "one\n\n", "")

    def test_a_directory_of_the_tree_can_be_renamed(self, running: Host) -> None:
        running.sh('python=$(command -v perl); $python -e \'rename("/usr/share/doc", "/usr/share/doc2") or die $!\'')

    def test_units_have_their_sandbox(self, running: Host) -> None:
        words = "-p DynamicUser=yes -p PrivateTmp=yes -p ProtectSystem=strict -p PrivateNetwork=yes"
        said = running.sh(
            f"systemd-run -q --pipe --wait {words} sh -c 'id -u; touch /usr/x; ip -o link | wc -l'", check=False
        )
        lines = said.out.split()
        assert int(lines[0]) > 60000
        assert lines[-1] == "1"
        assert "Read-only" in said.err


@pytest.mark.host
def test_reboot_and_power_cut_keep_the_disk_and_lose_the_rest() -> None:
    with Host.boot(tree.base_tree("bookworm"), "twice") as machine:
        boot_id = machine.read("/proc/sys/kernel/random/boot_id")
        for again in (machine.reboot, machine.power_cut):
            machine.write("/etc/kept", again.__name__)
            machine.write("/run/lost", "x")
            leader = machine.leader
            again()
            assert machine.leader != leader
            assert machine.state() == "running"
            assert machine.read("/etc/kept") == again.__name__
            assert not machine.exists("/run/lost")
            assert machine.sh(RESOLVED).ok
        assert boot_id  # the kernel is the outer machine's: boot_id does not change
        machine.power_off()
        machine.power_on()
        assert machine.state() == "running"


@pytest.mark.host
def test_a_power_cut_loses_what_was_not_synced_on_a_disk_of_its_own() -> None:
    with Host.boot(tree.base_tree("bookworm"), "disk", own_disk=True) as machine:
        machine.sh("mkdir /srv/d; echo 1 >/srv/d/synced; sync; echo 2 >/srv/d/lost; echo 3 >/srv/d/fsynced")
        machine.sh("dd if=/dev/null of=/srv/d/fsynced conv=notrunc,fsync 2>/dev/null; echo more >>/srv/d/synced")
        machine.power_cut()
        assert machine.read("/srv/d/synced") == "1\n"
        assert machine.read("/srv/d/fsynced") == "3\n"
        assert not machine.sh("test -s /srv/d/lost", check=False).ok
        machine.sh("echo 4 >/srv/d/later")
        machine.reboot()
        assert machine.read("/srv/d/later") == "4\n"
        disk = machine.directory / "disk"
    assert str(disk) not in Path("/proc/self/mounts").read_text()


@pytest.mark.host
def test_what_is_enabled_comes_back_after_a_reboot() -> None:
    with Host.boot(tree.base_tree("bookworm"), "units") as machine:
        unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
        machine.write("/etc/systemd/system/kept.service", unit)
        machine.sh("systemctl enable --now kept.service")
        machine.reboot()
        assert machine.sh("systemctl is-active kept.service").out == "active\n"
        assert "kept.service" in machine.journal()


@pytest.mark.host
def test_two_hosts_and_a_box_live_side_by_side(tmp_path: Path) -> None:
    base = tree.base_tree("bookworm")
    with Host.boot(base, "one") as one, Host.boot(base, "two") as two, Box.boot(base, "three") as three:
        assert len({one.ip, two.ip, three.ip}) == 3
        assert one.read("/etc/machine-id") != two.read("/etc/machine-id")
        one.reboot()
        two.power_cut()
        for machine in (one, two):
            assert machine.state() == "running"
        neighbours = one.sh(f"ip route get {two.ip} && ip route get {three.ip}").out
        assert "host0" in neighbours


@pytest.mark.host
@pytest.mark.slow
def test_trixie_boots_as_well() -> None:
    with Host.boot(tree.base_tree("trixie"), "trixie") as machine:
        assert "trixie" in machine.read("/etc/os-release")
        assert machine.state() == "running"
        assert machine.sh(RESOLVED).ok
        machine.reboot()
        assert machine.state() == "running"


@pytest.mark.host
def test_limits_are_enforced_when_asked_for() -> None:
    with Host.boot(tree.base_tree("bookworm"), "limits", limits=True) as machine:
        eat = 'exec perl -e \'$x = "x" x 200000000; print "ate\\n"\''
        free = machine.sh(f"systemd-run -q --pipe --wait sh -c {quoted(eat)}", check=False)
        assert free.out == "ate\n"
        bound = machine.sh(f"systemd-run -q --pipe --wait -p MemoryMax=50M sh -c {quoted(eat)}", check=False)
        assert not bound.ok
        assert "ate" not in bound.out
        forks = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
        # With groups of version 1, systemd in a container may not notice that the last child has ended.
        words = "-p TasksMax=4 -p TimeoutStopSec=1s"
        tasks = machine.sh(f"systemd-run -q --pipe --wait {words} sh -c {quoted(forks)}", check=False)
        assert "fork" in tasks.text
        machine.reboot()
        assert machine.state() == "running"


@pytest.mark.embedded
def test_a_box_has_no_systemd_running() -> None:
    with Box.boot(tree.base_tree("bookworm"), "box") as machine:
        assert not machine.exists("/run/systemd/system")
        assert not machine.sh("systemctl is-system-running", check=False).ok
        assert machine.sh(RESOLVED).ok
        machine.write("/etc/kept", "x")
        machine.sh("setsid sleep 1234 >/dev/null 2>&1 </dev/null & echo $! >/etc/pid")
        machine.reboot()
        assert machine.exists("/etc/kept")
        assert not machine.sh("kill -0 $(cat /etc/pid)", check=False).ok
        machine.run_as_main("sleep", "4321")
        assert "4321" in machine.sh("cat /proc/2/cmdline").out


@pytest.mark.host
def test_what_a_killed_run_leaves_is_swept_away() -> None:
    script = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from lab import host, tree\n"
        "machine = host.Host.boot(tree.base_tree('bookworm'), 'left')\n"
        "print(machine._slot.number, machine.leader, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    said = run(["/usr/bin/python3", "-c", script], check=False)
    number, leader = said.out.split()
    assert Path(f"/proc/{leader}").exists()
    # Once it is swept, a machine of another worker may take its number at any moment: look for this one's own things.
    mark = CACHE / "hosts" / number / "mark"
    mark.touch()
    netns = Path(f"/run/netns/shiplab-{number}")
    known = netns.stat().st_ino
    net.sweep()
    wait_for("its end", lambda: not Path(f"/proc/{leader}").exists())
    assert not mark.exists()
    with suppress(FileNotFoundError):
        assert netns.stat().st_ino != known


@pytest.mark.host
def test_a_clone_of_the_repository_is_clean_and_complete() -> None:
    source = snapshot.clone()
    assert (source / ".git").is_dir()
    assert source / "pyproject.toml" in snapshot.installed_files(source)
    assert not [path for path in snapshot.installed_files(source) if path.is_relative_to(source / "tests")]
    assert not list(source.glob(".venv*"))


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bad = threading.Event()

    def do_GET(self) -> None:
        body = f"hello {self.headers['Host']}".encode()
        self.send_response(502 if self.bad.is_set() else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def test_a_load_counts_answers_and_failures() -> None:
    Page.bad.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert fetch("127.0.0.1", port=port, headers={"Host": "b"}).body == "hello b"
        with Load("127.0.0.1", host="a", port=port, threads=4) as load:
            load.wait_for_body("hello a")
            wait_for("more", lambda: load.total > 50)
            assert load.total > 50
            Page.bad.set()
            wait_for("failures", lambda: load._failures)
        report = load.stop()
        server.shutdown()
    assert report.total == sum(report.by_status.values()) == report.by_body["hello a"]
    assert 0 < report.failed == report.by_status[502]
    assert "502: hello a" in str(report)


def test_a_load_on_a_closed_port_fails_every_time() -> None:
    with Load("127.0.0.1", host="a", port=9, threads=2) as load:
        wait_for("some failures", lambda: load.total > 5)
    report = load.stop()
    assert report.failed == report.total
    assert "ConnectionRefusedError" in report.failures[0].what


def test_what_the_server_said_in_a_push() -> None:
    seen = "To x\nremote: \nremote: one\x1b[K        \nremote: two\n   abc..def  main -> main\n"
    assert Result(0, "", seen).remote == "\none\ntwo"


def quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
