"""Who gets in as `shipit`, as whom, for how long and how often (threat rows 8 and 9a-9c)."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from host.apps import pushed, say, unwell
from lab.background import Background, wait_for
from lab.base import REPO
from lab.client import Client
from lab.host import Host

from receiver.system import audit

THEIRS = "/etc/ssh/sshd_config.d/00-theirs.conf"
WAYS = (
    "TrustedUserCAKeys /etc/ssh/ca.pub\nAuthorizedKeysCommand /usr/local/bin/keys\nAuthorizedKeysCommandUser nobody\n"
)
GATEWAY = "/usr/lib/shipit/current/share/shipit/libexec/gateway"


@contextmanager
def sshd(host: Host, text: str) -> Iterator[None]:
    """What an administrator has set for reasons of his own."""
    try:
        host.write(THEIRS, text)
        host.sh("sshd -t")
        reload(host)
        yield
    finally:
        host.sh(f"rm -f {THEIRS}")
        reload(host)


def reload(host: Host) -> None:
    """sshd makes its sockets anew: until then nobody gets through, and what it knew may still count."""
    known = "systemctl show --value --property=ActiveEnterTimestampMonotonic ssh"
    before = host.sh(known).out
    host.sh("systemctl restart ssh")
    wait_for("sshd", lambda: host.sh(known).out != before and host.sh("exec 3<>/dev/tcp/127.0.0.1/22", check=False).ok)


@pytest.mark.host
@pytest.mark.parametrize("suite", ["shared_host", "trixie_host"])
def test_no_setting_of_sshd_gives_anybody_a_shell(
    suite: str, request: pytest.FixtureRequest, client_of: Callable[..., Client]
) -> None:
    host: Host = request.getfixturevalue(suite)
    admin, eve = client_of(host, "admin", admin=True), client_of(host, "eve")
    authority = eve.dir / "ca"
    eve.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(authority))
    eve.run("ssh-keygen", "-q", "-s", str(authority), "-I", "eve", "-n", "shipit", f"{eve.key}.pub")
    host.write("/etc/ssh/ca.pub", authority.with_suffix(".pub").read_text())
    host.write("/usr/local/bin/keys", f"#!/bin/sh\necho '{eve.public_key}'\n", mode=0o755)
    with sshd(host, WAYS + "HostbasedAuthentication yes\nGSSAPIAuthentication yes\n"):
        for words in ("id", ""):
            refused = eve.ssh(*filter(None, [words]))
            assert refused.code == 255 and "Permission denied" in refused.err, str(refused)
        assert say(admin, "version").code == 0
        assert unwell(host) == []
    # One that wins over ours lets eve in, but there is nothing to get into.
    with sshd(host, f"Match User shipit\n{WAYS}Match all\n"):
        fingerprint = admin.run("ssh-keygen", "-lf", f"{admin.key}.pub").out.split()[1]
        name = host.sh("shipit ssh-keys:list | awk '/admin/ {print $1; exit}'").out.strip()
        tries = ["id", "", f"{GATEWAY}; id", f"{GATEWAY} {name} {fingerprint}; id", "/usr/lib/openssh/sftp-server"]
        for tty, words in [(True, ""), (True, "/bin/sh -i"), *((False, words) for words in tries)]:
            tried = eve.ssh(*filter(None, [words]), tty=tty, input="id\n")
            assert "uid=" not in tried.out + tried.err, str(tried)
            assert "no shell here" in tried.out + tried.err and tried.code == 77, str(tried)
        sftp = eve.run("sftp", "-F", str(eve.dir / "config"), "-b", "-", eve.ip, input="ls\n", check=False)
        assert sftp.code != 0
        found = " ".join(unwell(host))
        assert "trustedusercakeys /etc/ssh/ca.pub" in found and "authorizedkeyscommand /usr/local/bin/keys" in found
        again = host.install(check=False)
        assert again.code != 0 and "for shipit it has: trustedusercakeys" in again.out + again.err, str(again)
    assert say(admin, "version").code == 0


class Master:
    """One connection for many commands (ControlMaster)."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._socket = client, str(client.dir / name)
        client.trust()
        client.run(*self._words("-oControlMaster=yes", "-fN"), client.ip)

    def _words(self, *options: str) -> list[str]:
        return ["ssh", "-F", str(self._client.dir / "config"), "-S", self._socket, *options]

    def start(self, *words: str, stdin: int | None = None) -> Background:
        argv = [*self._words("-T"), self._client.ip, *words]
        return Background(argv, stdin, env=self._client.environment, cwd=self._client.home)

    def say(self, *words: str) -> tuple[int, str]:
        done = self.start(*words).wait(timeout=30)
        return done.code, done.out + done.err

    def up(self) -> bool:
        return self._client.run(*self._words("-O", "check"), self._client.ip, check=False).ok


def test_a_key_that_is_removed_is_cut_off_and_its_name_helps_it_no_more(
    laptop: Client, shared_host: Host, client_of: Callable[..., Client]
) -> None:
    pushed(laptop, "watched", "watched")
    eve, ann = client_of(shared_host, "eve"), client_of(shared_host, "ann")
    assert say(laptop, "ssh-keys:add", "team", "--app", "watched", input=eve.public_key + "\n").code == 0
    idle, busy = Master(eve, "idle"), Master(eve, "busy")
    assert idle.say("version")[0] == busy.say("version")[0] == 0
    commands = [busy.start("logs watched -t"), busy.start("run watched sleep 1000")]
    here = ("pgrep", "-u", "app-watched", "-f", "sleep 1000")
    wait_for("the commands", lambda: shared_host.run(*here, check=False).ok)
    removed = say(laptop, "ssh-keys:remove", "team")
    assert removed.code == 0 and "2 of its commands were ended" in removed.out, str(removed)
    for command in commands:
        assert command.wait(timeout=10).code != 0
    wait_for("the job to end", lambda: not shared_host.run(*here, check=False).ok, timeout=10)
    wait_for("both connections to end", lambda: not idle.up() and not busy.up(), timeout=10)
    # The name is somebody else's now; so would be the rights of a connection that is known by its name alone.
    assert say(laptop, "ssh-keys:add", "team", "--role", "admin", input=ann.public_key + "\n").code == 0
    assert shared_host.run(GATEWAY, "team", "SHA256:x", user="shipit", check=False).code == 77
    assert say(ann, "ssh-keys:list").code == 0
    assert say(laptop, "ssh-keys:remove", "team").code == 0


def test_the_only_admins_key_stays_and_a_key_for_no_app_is_told(
    laptop: Client, shared_host: Host, client_of: Callable[..., Client]
) -> None:
    admin = shared_host.sh("shipit ssh-keys:list | awk '/admin/ {print $1; exit}'").out.strip()
    refused = say(laptop, "ssh-keys:remove", admin)
    assert refused.code == 2 and "only admin's key" in refused.err
    told = say(laptop, "ssh-keys:add", "typo", "--app", "blgo", input=client_of(shared_host, "typo").public_key + "\n")
    assert told.code == 0 and "no app blgo yet" in told.err
    assert say(laptop, "ssh-keys:remove", "typo").code == 0


def test_one_key_takes_no_places_from_the_others(
    laptop: Client, shared_host: Host, client_of: Callable[..., Client]
) -> None:
    pushed(laptop, "crowded", "crowded")
    eve = client_of(shared_host, "eve")
    assert say(laptop, "ssh-keys:add", "eve", "--app", "crowded", input=eve.public_key + "\n").code == 0
    masters = [Master(eve, f"master{number}") for number in range(3)]
    waiting = [master.start("config:set crowded KEY -", stdin=subprocess.PIPE) for master in masters for _ in range(18)]
    full = wait_for("all of eve's places to be taken", lambda: (
        found if "commands of the key eve are running" in (found := say(eve, "version")).err else None
    ))  # fmt: skip
    assert full.code == 75, str(full)
    assert say(laptop, "version").code == 0
    assert say(laptop, "config:set", "crowded", "A=1").code == 0
    for command in waiting:
        command.kill()
    wait_for("places", lambda: say(eve, "version").code == 0)
    assert say(laptop, "ssh-keys:remove", "eve").code == 0


def test_lost_lines_of_keys_are_seen_and_written_again(laptop: Client, shared_host: Host) -> None:
    lines = "/var/lib/shipit/home/.ssh/authorized_keys"
    for harm in (f"rm {lines}", f"echo >{lines}", f"chmod 0666 {lines}"):
        shared_host.sh(harm)
        assert "does not hold the lines of the keys" in " ".join(unwell(shared_host)), harm
        assert laptop.ssh("version").code == 255, harm
        shared_host.sh("shipit doctor --fix", check=False)
        assert unwell(shared_host) == []
        assert laptop.ssh("version").code == 0


def test_an_app_that_calls_itself_shipit_is_in_no_audit(laptop: Client, shared_host: Host) -> None:
    pushed(laptop, "liar", "liar")
    line = json.dumps({"key": "ann", "role": "admin", "verb": "apps:destroy", "result": 0})
    forge = f"import syslog; syslog.openlog('shipit'); syslog.syslog(syslog.LOG_AUTHPRIV, {line!r})"
    assert say(laptop, "run", "liar", "python", "-c", forge).code == 0
    forged = '"verb": "apps:destroy"'
    assert forged in shared_host.sh("journalctl --sync; journalctl -t shipit").out, "the app could not even try"
    told = shared_host.sh(audit.IN_JOURNAL).out
    assert forged not in told and '"verb": "run"' in told
    documented = re.findall(r"`sudo (journalctl [^`]*)`", " ".join((REPO / "docs/operating.md").read_text().split()))
    for command in documented:
        shown = shared_host.sh(command).out
        assert forged not in shown and '"verb": "run"' in shown, command
    assert documented


def test_a_check_over_ssh_looks_at_no_file_of_the_server(laptop: Client) -> None:
    for words in (("check",), ("check", "/root"), ("check", "/var/lib/shipit/apps"), ("check", "/nowhere")):
        refused = say(laptop, *words)
        assert refused.code == 2 and "over ssh that is the server" in refused.err, str(refused)
