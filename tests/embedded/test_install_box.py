"""install.sh where systemd is not running: the demo, ports that are taken, an sshd that is there, and the ways back."""

from __future__ import annotations

import pytest
from lab import snapshot
from lab.background import wait_for
from lab.base import REPO
from lab.client import Client
from lab.host import Box

EXAMPLE = {path.name: path.read_text() for path in (REPO / "examples/hello").iterdir() if path.is_file()}


@pytest.mark.slow
def test_the_whole_demo_holds_on_a_bare_container(bare_box: Box) -> None:
    bare_box.put(snapshot.clone(), "/root/shipit")
    said = bare_box.sh("cd /root/shipit && ./install.sh --demo", timeout=600)
    assert said.out.count("  ok ") == 8 and "BROKEN" not in said.out, said
    assert "embedded supervisor" in said.out
    assert "http://hello.localhost" in said.out


def test_taken_ports_are_avoided_and_named(bare_box: Box, client: Client) -> None:
    bare_box.sh("apt-get -q update && apt-get install -qy --no-install-recommends python3")
    for port in (22, 80):
        bare_box.start(f"exec python3 -m http.server {port}")
    wait_for("both ports", lambda: bare_box.sh("python3 -c '" + BOTH + "'", check=False).ok)
    said = bare_box.install()
    assert ":8080/" in said.out and ":2222/" in said.out, said
    other = Client(bare_box, client.home.with_name("other"), key=snapshot.admin_key(), port=2222)
    repo = other.repo("hello", EXAMPLE)
    assert repo.push().code == 0
    assert other.get("hello", port=8080).status == 200


BOTH = 'import socket; [socket.create_connection(("127.0.0.1", p)) for p in (22, 80)]'


def test_an_sshd_and_nginx_that_run_already_are_used(bare_box: Box, client: Client) -> None:
    bare_box.sh("apt-get -q update; apt-get install -qy --no-install-recommends openssh-server nginx")
    bare_box.sh("service ssh start; service nginx start")
    pids = "cat /run/sshd.pid /run/nginx.pid"
    before = bare_box.sh(pids).out
    bare_box.install()
    assert bare_box.sh(pids).out == before
    assert client.repo("hello", EXAMPLE).push().code == 0
    assert client.get("hello").status == 200


def test_a_second_run_and_an_upgrade_are_not_noticed_by_the_app(box: Box, client: Client) -> None:
    box.run("shipit-supervisord", "start")
    repo = client.repo("hello", EXAMPLE)
    assert repo.push().code == 0
    pids = box.sh("pgrep -u app-hello | sort").out
    with client.load("hello") as load:
        box.install(key=False)
        box.sh("echo '# newer' >> /root/shipit/receiver/__init__.py")
        box.install(key=False)
        report = load.stop()
    assert report.failed == 0 and report.total > 50, report
    assert box.sh("pgrep -u app-hello | sort").out == pids
    repo.commit()
    assert repo.push().code == 0


def test_uninstalling_keeps_the_app_serving_and_purging_ends_everything(box: Box, client: Client) -> None:
    box.run("shipit-supervisord", "start")
    repo = client.repo("hello", EXAMPLE)
    assert repo.push().code == 0
    box.sh("cd /root/shipit && ./install.sh --uninstall")
    assert client.get("hello").status == 200
    repo.commit()
    assert repo.push().code != 0
    box.install(key=False)
    assert repo.push().code == 0
    box.sh("cd /root/shipit && ./install.sh --purge --yes")
    assert box.sh("pgrep -a nginx; pgrep -af 'supervis|gunicorn'", check=False).out == ""
    left = "find /etc /usr/lib /usr/local /var/lib /var/log /var/cache /run -iname '*shipit*'; getent passwd | grep -E 'shipit|^app-'"
    assert box.sh(left, check=False).out == ""
