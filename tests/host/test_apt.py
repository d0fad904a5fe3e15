"""Packages of Debian that an app asks for: an administrator allows each once, then pushes install them."""

from __future__ import annotations

from lab.client import Client
from lab.host import Host

from host.apps import asked, files, say


def test_a_package_is_installed_once_an_administrator_has_allowed_it_and_the_release_says_so(
    laptop: Client, shared_host: Host
) -> None:
    shared_host.sh("! command -v ascii")
    repo = laptop.repo("hosted", {**files("one"), "Aptfile": "ascii  # a table\n", "shipit.yml": "apt: [hostname]\n"})
    refused = repo.push()
    assert refused.code != 0 and "do not let an app have ascii installed (apt_allow)" in refused.remote, str(refused)
    assert "shipit apt:allow ascii" in refused.remote, str(refused)
    over_ssh = say(laptop, "apt:allow", "ascii")
    assert over_ssh.code != 0 and "On the server" in over_ssh.err
    bad = shared_host.sh("shipit apt:allow 'ascii; reboot'", check=False)
    assert bad.code != 0, bad
    shared_host.sh("shipit apt:allow ascii 'no-such-*'")
    assert "apt_allow: " in shared_host.read("/etc/shipit/shipit.yml")
    pushed = repo.push()
    assert pushed.code == 0 and "Installing ascii on the server (apt)" in pushed.remote, str(pushed)
    shared_host.sh("dpkg-query --show ascii && command -v ascii")
    rows = {row["package"]: row["there"] for row in asked(laptop, "apt:report")["packages"]}
    assert rows == {"ascii": "yes", "hostname": "yes"}
    repo.commit({"Aptfile": "no-such-thing\n"})
    nowhere = repo.push()
    assert nowhere.code != 0 and "The server has no no-such-thing" in nowhere.remote, str(nowhere)
    repo.commit({"Aptfile": "ascii-\n"})
    removes = repo.push()
    assert removes.code != 0 and "Aptfile:1: " in removes.remote, str(removes)
    shared_host.sh("dpkg-query --show ascii")


def test_what_a_build_lacks_is_installed_and_the_build_done_again_where_an_administrator_has_allowed_it(
    laptop: Client, shared_host: Host
) -> None:
    shared_host.sh("! command -v pkg-config")
    repo = laptop.repo("lacking", {**files("one"), "shipit.yml": "build: {command: pkg-config --version}\n"})
    failed = repo.push()
    assert failed.code != 0 and "shipit apt:allow pkg-config" in failed.remote, str(failed)
    shared_host.sh("shipit apt:allow pkg-config")
    pushed = repo.push()
    assert pushed.code == 0 and "Installing pkg-config on the server (apt)" in pushed.remote, str(pushed)
    assert "pkg-config" in {row["package"] for row in asked(laptop, "apt:report")["packages"]}
