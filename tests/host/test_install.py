"""install.sh on a server: what it takes, what it leaves alone, what a second run and the ways back do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import snapshot
from lab.background import wait_for
from lab.base import REPO, run
from lab.client import Client, Repo, fetch
from lab.host import Host
from lab.machine import Machine

EXAMPLE = REPO / "examples/hello"
FOREIGN_SITE = """
server {
    listen 80 default_server;
    server_name shop.example;
    location / { default_type text/plain; return 200 "the shop"; }
}
"""


def example(client: Client) -> Repo:
    """The app hello, not pushed yet."""
    return client.repo("hello", {path.name: path.read_text() for path in EXAMPLE.iterdir() if path.is_file()})


def put_clone(machine: Machine) -> None:
    machine.put(snapshot.clone(), "/root/shipit")


def fingerprints(machine: Machine) -> set[str]:
    keys = machine.run("shipit", "ssh-keys:list").out
    return set(re.findall(r"SHA256:\S+", keys))


def fingerprint(public: str) -> str:
    return run(["ssh-keygen", "-lf", "-"], input=public).out.split()[1]


def everything(machine: Machine) -> str:
    """All that install.sh may touch, as names, modes, owners and contents."""
    script = """
        cd /; find etc usr/local usr/lib/shipit/versions var/lib/shipit -xdev ! -name '*.lock' ! -name '*-' \\
            -printf '%p %M %u:%g %l\\n' | sort
        find etc usr/local var/lib/shipit -xdev -type f ! -name '*.lock' ! -name '*-' -print0 | sort -z | xargs -0 sha256sum
        readlink usr/lib/shipit/current
    """
    return machine.sh(script).out


def test_a_second_run_changes_nothing_and_builds_nothing(host: Host) -> None:
    before = everything(host)
    said = host.install(key=False)
    assert everything(host) == before
    assert "nothing missing" in said.out and "is built already" in said.out


def test_an_upgrade_is_not_noticed_by_an_app_that_serves(host: Host, client: Client) -> None:
    repo = example(client)
    assert repo.push().code == 0
    before = host.run("readlink", "/usr/lib/shipit/current").out
    pids = host.sh("pgrep -u app-hello | sort").out
    host.sh("echo '# newer' >> /root/shipit/receiver/__init__.py")
    with client.load("hello") as load:
        host.install(key=False)
        report = load.stop()
    after = host.run("readlink", "/usr/lib/shipit/current").out
    assert after != before
    assert host.sh("pgrep -u app-hello | sort").out == pids
    assert report.failed == 0 and report.total > 50, str(report)
    assert "# newer" in host.sh("tail -n1 /usr/lib/shipit/current/lib/python3*/site-packages/receiver/__init__.py").out
    assert host.exists("/usr/lib/shipit/" + before.strip()), "the previous version is kept"
    repo.commit({"app.py": EXAMPLE.joinpath("app.py").read_text().replace("Hello from", "Newer than")})
    assert repo.push().code == 0
    assert "Newer than" in client.get("hello").body


def test_only_the_previous_version_is_kept(host: Host) -> None:
    for number in range(3):
        host.sh(f"echo '# {number}' >> /root/shipit/receiver/__init__.py")
        host.install(key=False)
    assert len(host.sh("ls /usr/lib/shipit/versions").out.split()) == 2


def test_an_install_killed_while_it_builds_leaves_the_old_version_working(host: Host, client: Client) -> None:
    before = host.run("readlink", "/usr/lib/shipit/current").out
    host.sh("echo '# newer' >> /root/shipit/receiver/__init__.py")
    under_way = host.start("cd /root/shipit && exec ./install.sh")
    wait_for("the build", lambda: "version" in under_way.so_far())
    time.sleep(0.5)
    host.sh("pkill -KILL -f '^bash [.]/install.sh'; pkill -KILL -f '[u]v pip' || true")
    under_way.wait()
    assert host.run("readlink", "/usr/lib/shipit/current").out == before
    assert example(client).push().code == 0
    host.install(key=False)
    assert host.run("readlink", "/usr/lib/shipit/current").out != before
    assert len(host.sh("ls /usr/lib/shipit/versions").out.split()) == 2, "the half-built one is gone"


def test_uninstalling_leaves_the_app_serving_and_lets_nobody_push(host: Host, client: Client) -> None:
    def looks() -> str:
        timer = "shipit-look@hello.timer"
        return " ".join(host.sh(f"systemctl is-active {timer}; systemctl is-enabled {timer}", check=False).out.split())

    repo = example(client)
    assert repo.push().code == 0
    call = "from receiver.root.client import Agent; from pathlib import Path"
    follow = f"{call}; Agent.connect(Path('/run/shipit/agent.sock')).look_every('hello', 3600)"
    host.sh(f'/usr/lib/shipit/current/bin/python -c "{follow}"')
    assert looks() == "active enabled"
    said = host.sh("cd /root/shipit && ./install.sh --uninstall")
    assert "hello" in said.out
    assert looks() == "inactive disabled", "it receives nothing of what an app follows either"
    assert client.get("hello").status == 200
    repo.commit()
    assert repo.push().code != 0
    assert not host.exists("/run/shipit/agent.sock")
    host.reboot()
    wait_for("the app to answer after a reboot", lambda: client.get("hello").status == 200)
    host.install(key=False)
    assert repo.push().code == 0, "a new install.sh receives again, with the same keys"
    assert looks() == "active enabled"


def test_purging_leaves_nothing_but_the_packages(bare_host: Host, client: Client) -> None:
    look = """
        find / -xdev \\( -path /root -o -path /var/log/journal -o -path /proc -o -path /sys \\) -prune \\
            -o -iname '*shipit*' -print
        grep -E 'shipit|^app-|^build-' /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid /etc/subgid
        systemctl list-units --all --plain --no-legend 'shipit*'
        ls /etc/systemd/system /etc/tmpfiles.d
        ls -d /etc/needrestart
    """
    before = bare_host.sh(look, check=False).out
    bare_host.install()
    assert example(client).push().code == 0
    refused = bare_host.sh("cd /root/shipit && ./install.sh --purge </dev/null", check=False)
    assert refused.code != 0 and client.get("hello").status == 200, "it asks first"
    bare_host.sh("cd /root/shipit && ./install.sh --purge --yes")
    # What openssh-server, which install.sh brought, has enabled: itself, and on Debian 13 what makes its keys.
    of_ssh = bare_host.sh("cd /etc/systemd/system && find . -path './ssh*.wants/*'").out.split()
    assert {path.rpartition("/")[2] for path in of_ssh} <= {"sshd-keygen.service"}
    after = set(bare_host.sh(look, check=False).out.split()) - {"sshd.service", "ssh.service"}
    after -= {path.split("/")[1] for path in of_ssh}
    assert after - set(before.split()) == set()
    assert not [
        line for line in bare_host.sh("ps -eo user,args").out.splitlines() if "shipit" in line or "app-" in line
    ]
    assert "Welcome to nginx" in fetch(bare_host.ip).body, "Debian's default site is back"
    bare_host.install()
    assert bare_host.run("shipit", "apps:list").ok


def test_a_site_that_nginx_serves_already_is_left_alone(bare_host: Host, client: Client) -> None:
    bare_host.sh(
        "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends nginx"
    )
    bare_host.write("/etc/nginx/sites-available/shop", FOREIGN_SITE)
    bare_host.sh(
        "cd /etc/nginx/sites-enabled && rm default && ln -s ../sites-available/shop . && systemctl reload nginx"
    )
    digest = "find /etc/nginx -name 'zz-shipit*' -prune -o -path /etc/nginx/shipit -prune -o -type f -print0 | xargs -0 md5sum"
    before = bare_host.sh(digest).out
    bare_host.install()
    assert bare_host.sh(digest).out == before
    assert example(client).push().code == 0
    assert "Hello from shipit" in client.get("hello").body
    assert fetch(bare_host.ip, headers={"Host": "shop.example"}).body == "the shop"
    assert fetch(bare_host.ip, headers={"Host": "nobody.example"}).body == "the shop", "its default stays the default"
    bare_host.sh("cd /root/shipit && ./install.sh --purge --yes")
    assert bare_host.sh(digest).out == before
    assert fetch(bare_host.ip, headers={"Host": "nobody.example"}).body == "the shop"


def test_keys_are_taken_from_root_unless_they_are_given_and_a_removed_one_stays_removed(
    bare_host: Host, client_of: Callable[..., Client]
) -> None:
    ann, bob, cat = (client_of(bare_host, name) for name in ("ann", "bob", "cat"))
    restricted = f'command="/bin/true" {bob.public_key}'
    bare_host.write("/root/.ssh/authorized_keys", f"# ours\n{ann.public_key}\n{restricted}\n", 0o600)
    said = bare_host.install(key=False)
    assert fingerprints(bare_host) == {fingerprint(ann.public_key)}, "a key that may do less does not become an admin"
    assert fingerprint(ann.public_key) in said.out and "git remote add prod shipit@" in said.out
    assert ann.ssh("apps:list").ok and not cat.ssh("apps:list").ok

    bare_host.write("/root/cat.pub", cat.public_key + "\n")
    bare_host.sh("cd /root/shipit && ./install.sh --key /root/cat.pub")
    assert cat.ssh("apps:list").ok
    assert ann.ssh("ssh-keys:remove", "ann-laptop").ok
    bare_host.install(key=False)
    assert fingerprints(bare_host) == {fingerprint(cat.public_key)}


def test_without_any_key_it_says_how_to_add_one(bare_host: Host) -> None:
    said = bare_host.install(key=False)
    assert "shipit ssh-keys:add NAME < id_ed25519.pub" in said.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--nonsense", "no option --nonsense"),
        ("--key", "--key needs a value"),
        ("--key /nowhere.pub", "/nowhere.pub cannot be read"),
        ("--key /etc/passwd", "not a public key"),
        ("--purge --demo", "takes no other option"),
        ("--http-port 0x50", "invalid int value"),
        ("--http-port 70000", "is not a port"),
        ("--domain Bad_Name", "is not a domain"),
    ],
)
def test_wrong_options_are_refused_with_a_reason(shared_host: Host, words: str, told: str) -> None:
    before = everything(shared_host)
    said = shared_host.sh(f"cd /root/shipit && ./install.sh {words}", check=False)
    assert said.code == 2 and told in said.text, said
    assert everything(shared_host) == before


def test_who_is_not_root_is_told_to_use_sudo(shared_host: Host) -> None:
    shared_host.sh("chmod 755 /root")
    said = shared_host.run("/root/shipit/install.sh", user="www-data", check=False)
    assert said.code == 77 and "no sudo here" in said.err and "su -c '/root/shipit/install.sh'" in said.err


def test_another_system_is_refused_before_anything_is_changed(bare_host: Host) -> None:
    bare_host.sh("sed -i 's/^VERSION_ID=.*/VERSION_ID=\"11\"/' /etc/os-release")
    said = bare_host.install(check=False)
    assert said.code == 1 and "debian 11" in said.err
    assert bare_host.sh("command -v git nginx", check=False).out == ""


def test_a_port_that_another_program_has_is_named_and_nothing_is_changed(shared_host: Host) -> None:
    listening = shared_host.start("python3 -m http.server 8080")
    shared_host.sh("until ss -ltn | grep -q :8080; do sleep 0.1; done")
    before = everything(shared_host)
    said = shared_host.sh("cd /root/shipit && ./install.sh --http-port 8080", check=False)
    listening.kill()
    assert said.code == 71 and "Port 8080 is taken by python3 (pid " in said.err, said
    assert everything(shared_host) == before


def test_domain_and_port_can_be_changed_later_and_apps_answer_there_at_once(host: Host, client: Client) -> None:
    host.sh("echo 'keep: 9  # mine' >> /etc/shipit/shipit.yml")
    assert example(client).push().code == 0
    host.sh("cd /root/shipit && ./install.sh --domain apps.example --http-port 8088")
    text = host.read("/etc/shipit/shipit.yml")
    assert "domain: apps.example\n" in text and "http_port: 8088\n" in text and "keep: 9  # mine\n" in text
    assert fetch(host.ip, port=8088).status == 404
    assert "Hello from shipit" in fetch(host.ip, port=8088, headers={"Host": "hello.apps.example"}).body


@pytest.mark.slow
def test_an_install_after_a_failed_one_or_a_demo_ends_as_a_first_one_does(bare_host: Host, client: Client) -> None:
    """apache has port 80; the port that shipit advises is taken; later the demo's domain gives way to a real one."""
    bare_host.sh("apt-get -q update && apt-get -q -y --no-install-recommends install apache2")
    refused = bare_host.install(check=False)
    assert refused.code == 71 and "--http-port 8080" in refused.err, refused
    bare_host.sh("cd /root/shipit && ./install.sh --http-port 8080 --demo", timeout=300)
    assert fetch(bare_host.ip, port=8080).body == "There is no app at this name.\n", (
        "nginx is shipit's, as at a first run"
    )
    assert "domain: localhost\n" in bare_host.read("/etc/shipit/shipit.yml")
    bare_host.sh("cd /root/shipit && ./install.sh")
    domain = bare_host.sh("sed -n 's/^domain: //p' /etc/shipit/shipit.yml").out.strip()
    assert domain.endswith(".sslip.io")
    assert "Hello" in fetch(bare_host.ip, port=8080, headers={"Host": f"hello.{domain}"}).body
    assert bare_host.failed_units() == []


def test_what_root_needs_to_reach_the_world_is_kept_for_builds(bare_host: Host) -> None:
    bare_host.environment["NO_PROXY"] = "intranet.example"
    bare_host.install()
    text = bare_host.read("/etc/shipit/shipit.yml")
    assert '  NO_PROXY: "intranet.example"\n' in text


def test_it_runs_on_trixie(trixie_host: Host, client: Client) -> None:
    assert example(client).push().code == 0
    assert "Hello from shipit" in client.get("hello").body
    assert trixie_host.failed_units() == []


@pytest.mark.slow
def test_who_may_sudo_types_the_same_and_their_key_is_the_first(bare_trixie: Host, client: Client) -> None:
    """README's command in a clone in somebody's home, on a trixie with nothing on it; then the push of README."""
    bare_trixie.sh("apt-get -q update && apt-get -q -y --no-install-recommends install sudo", timeout=300)
    bare_trixie.sh(
        "useradd --create-home --shell /bin/bash ann; echo 'ann ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann"
    )
    bare_trixie.put(snapshot.clone(), "/home/ann/shipit")
    bare_trixie.write("/home/ann/.ssh/authorized_keys", snapshot.admin_key().with_suffix(".pub").read_text())
    bare_trixie.sh("chown -R ann:ann /home/ann")
    said = bare_trixie.sh("cd ~/shipit && ./install.sh --demo", user="ann", timeout=300)
    assert "BROKEN" not in said.out and said.out.count("  ok ") == 8, said.out
    keys = bare_trixie.sh("shipit ssh-keys:list", user="ann").out
    assert fingerprint(snapshot.admin_key().with_suffix(".pub").read_text()) in keys
    assert client.repo("blog", {"Procfile": "web: python3 -m http.server $PORT\n", "a": "one"}).push().ok
    assert client.get("blog", "/a").body == "one"
    assert bare_trixie.failed_units() == []


@pytest.mark.slow
def test_the_demo_holds_what_it_promises(host: Host, tmp_path: Path) -> None:
    for _ in range(2):
        said = host.sh("cd /root/shipit && ./install.sh --demo", timeout=300)
        assert "BROKEN" not in said.out
        assert said.out.count("  ok ") == 8, said.out
        assert "0 lost" in said.out and "$ git push prod main" in said.out
    assert "shipit-demo" not in host.run("shipit", "ssh-keys:list").out
    assert host.sh("ls -d /tmp/shipit-demo-*", check=False).out == ""


def test_the_demo_leaves_an_app_of_that_name_alone(host: Host, client: Client) -> None:
    assert example(client).push().code == 0
    said = host.sh("cd /root/shipit && ./install.sh --demo", check=False)
    assert said.code == 2 and "did not make" in said.err
    assert "(v1)" in client.get("hello").body
