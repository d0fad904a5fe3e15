"""The machine's Python changes: Debian 12 → 13 by apt, with everything that a night of upgrades does (decision 18)."""

from __future__ import annotations

import pytest
from lab import tree
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import doctor, files, live, say, until_body

APPS = "/var/lib/shipit/apps"
UPGRADE = """
sed -i s/bookworm/trixie/ /etc/apt/sources.list
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Options::=--force-confold full-upgrade
apt-get -y -q autoremove
"""


def python_of(host: Host, release: str) -> str:
    return host.sh(f"readlink -f {APPS}/blog/slugs/{release}/.venv/bin/python").out.strip()


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.skipif(tree.SUITE != "bookworm", reason="begins on Debian 12")
def test_an_upgrade_of_the_system_leaves_apps_and_shipit_as_they_are_and_both_move_when_asked(
    host: Host, client: Client
) -> None:
    repo = client.repo("blog", {**files("one"), "requirements.txt": "wheel==0.45.1\n"})
    repo.push(check=True)
    assert python_of(host, "v1") == "/usr/bin/python3.11"
    host.sh(UPGRADE, timeout=1500)
    assert "3.13" in host.sh("python3 --version").out
    # What ends starts again, at once and at boot; who asks has an answer, and a push goes live.
    for unit in ("shipit-gateway.service", "shipit-agent.service"):
        host.sh(f"systemctl stop {unit}")
    host.sh("systemctl kill -s KILL shipit-blog-web-v1@1.service")
    until_body(client, "blog", "one")
    host.reboot()
    until_body(client, "blog", "one")
    assert say(client, "status", "blog").code == 0
    repo.commit({"mark": "two\n"})
    pushed = repo.push(check=True)
    assert "Traceback" not in pushed.err and client.get("blog").body.strip() == "two"
    told = [one["what"] for one in doctor(host)["findings"] if not one["well"]]
    assert any("python3.11" in what for what in told), told
    # Installing again moves shipit; an app moves with its next push.
    host.install()
    repo.commit({"mark": "three\n"})
    repo.push(check=True)
    assert client.get("blog").body.strip() == "three" and live(client, "blog") == "v3"
    assert python_of(host, "v3") == "/usr/bin/python3.13"
    assert not [one for one in doctor(host)["findings"] if not one["well"]]
    # A Python that is gone all the same is told, and mended.
    assert say(client, "rollback", "blog", "v1").code == 0
    host.sh("dpkg --purge --force-all python3.11-minimal python3.11")
    assert any("is gone" in one["what"] for one in doctor(host)["findings"] if not one["well"])
    fixed = host.run("shipit", "doctor", "--fix", check=False)
    assert "blog: built again" in fixed.out, str(fixed)
    wait_for("it to serve", lambda: client.get("blog").body.strip() == "one")
