"""The ssh gate: what gets through, and as what (threat rows 1-9)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_server import Laptop, Server

from receiver.caller import Role
from receiver.gate.keys import Keyring
from receiver.names import AppName

HOSTILE = [
    "git-receive-pack 'a'; id",
    'git-receive-pack "$(id)"',
    "git-receive-pack '$(id)'",
    "git-receive-pack '../../etc'",
    "git-receive-pack '~root/x'",
    "git-receive-pack 'a' 'b'",
    "git-receive-pack 'blog\nid'",
    "git-receive-pack '--upload-pack=x'",
    "git-receive-pack --help",
    "git-upload-archive 'blog'",
    "git-shell -c id",
    "git-lfs-authenticate 'blog' upload",
    "sh",
    "bash -c id",
    "id; id",
    "$(id)",
    "apps | sh",
    "apps\nid",
    "rsync --server -e.LsfxC . /etc",
    "scp -t /etc",
    "internal-sftp",
]


@pytest.mark.parametrize("command", HOSTILE)
def test_nothing_but_the_grammar_runs(server: Server, laptop: Laptop, command: str) -> None:
    server.make_app()
    done = laptop.ssh(command)
    assert done.returncode == 2, done
    assert "uid=" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith(" !     ") or done.stdout[4:8] == "ERR "


def test_a_login_without_a_command_says_what_there_is(server: Server, laptop: Laptop) -> None:
    for options in ([], ["-tt"]):
        done = laptop.ssh("", *options)
        assert done.returncode == 0 and "Hi alice" in done.stdout and "git push" in done.stdout


def test_nothing_is_forwarded(server: Server, laptop: Laptop) -> None:
    for options in (["-L", "0:127.0.0.1:22"], ["-R", "0:127.0.0.1:22"]):
        done = laptop.ssh("version", "-oExitOnForwardFailure=yes", *options)
        # A local forward is refused when it is used, a remote one when it is asked for.
        assert options[0] == "-L" or "remote port forwarding failed" in done.stderr
    assert laptop.ssh("", "-W", "127.0.0.1:22").returncode != 0
    sftp = subprocess.run(
        ["sftp", "-b", "-", *laptop.ssh_argv()[1:-1], laptop.ssh_argv()[-1]],
        input="ls\n", capture_output=True, text=True,
    )  # fmt: skip
    assert sftp.returncode != 0


def test_a_key_may_push_to_its_own_apps_only(server: Server, tmp_path: Path) -> None:
    key = server.add_key("ci", Role.DEPLOY, [AppName("blog")])
    ci = Laptop(server, tmp_path / "ci" / "tree", key).init("shop")
    server.make_app("shop")
    done = ci.push()
    assert done.returncode != 0 and "not for the app shop" in done.stderr
    assert "correct access rights" not in done.stderr
    assert ci.git("ls-remote", "prod", check=False).returncode != 0
    assert server.worker.told == []


def test_a_viewer_may_fetch_and_not_push(server: Server, laptop: Laptop, tmp_path: Path) -> None:
    server.make_app()
    laptop.push()
    viewer = Laptop(server, tmp_path / "vic" / "tree", server.add_key("vic", Role.VIEW)).init()
    assert "refs/heads/main" in viewer.git("ls-remote", "prod").stdout
    done = viewer.push("--force", "main")
    assert done.returncode != 0 and "role view" in done.stderr
    assert len(server.worker.told) == 1


def test_roles_hold_on_the_command_line(server: Server, laptop: Laptop, tmp_path: Path) -> None:
    viewer = Laptop(server, tmp_path / "vic" / "tree", server.add_key("vic", Role.VIEW))
    for who, command, code in [
        (viewer, "ssh-keys:list", 77),
        (laptop, "ssh-keys:list", 77),
        (laptop, "apps:destroy blog --force", 77),
        (viewer, "config:set blog A=1", 77),
        (viewer, "no-such-command", 2),
    ]:
        assert who.ssh(command).returncode == code, command


def test_a_removed_key_is_out_at_once(server: Server, laptop: Laptop) -> None:
    lines = server.layout.authorized_keys.read_text()
    Keyring(server.layout).remove("alice")
    # Even if sshd still knew the line.
    server.layout.authorized_keys.write_text(lines)
    done = laptop.ssh("version")
    assert done.returncode == 77 and "not known" in done.stderr


def test_an_unknown_app_is_made_by_its_first_push_where_that_is_allowed(server: Server, laptop: Laptop) -> None:
    pytest.importorskip("receiver.root.client")
    done = laptop.push()
    assert done.returncode == 0 and "Creating blog" in done.stderr
    assert "create_app" in server.agent.verbs and server.ledger().current_number() == 1


def test_an_app_that_was_made_for_a_push_that_is_refused_goes_with_it(server: Server, laptop: Laptop) -> None:
    laptop.commit({"Procfile": "web python app.py\n"})
    refused = laptop.push()
    assert refused.returncode == 1 and "blog is not there again" in refused.stderr
    assert server.agent.verbs[-1] == "destroy_app"


def test_one_that_has_taken_something_stays(server: Server, laptop: Laptop) -> None:
    assert laptop.push("-o", "no-deploy", "main").returncode == 0
    laptop.commit({"Procfile": "web python app.py\n"})
    assert laptop.push().returncode == 1
    assert "destroy_app" not in server.agent.verbs


def test_an_unknown_app_is_refused_where_apps_are_made_by_hand(server: Server, laptop: Laptop) -> None:
    server.layout.settings.write_text("create_on_push: false\n")
    done = laptop.push()
    assert done.returncode != 0 and "apps:create blog" in done.stderr
    assert not server.ledger().paths.dir.exists()


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("two lines", "exactly one line"),
        ("options", "not a public key"),
        ("private", "private key"),
        ("ca", "not a public key"),
        ("truncated", "damaged"),
    ],
)
def test_hostile_keys_are_refused_and_let_nobody_in(server: Server, tmp_path: Path, case: str, told: str) -> None:
    boss = Laptop(server, tmp_path / "boss" / "tree", server.add_key("boss", Role.ADMIN))
    evil = tmp_path / "evil"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", evil], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "good"], check=True)
    line, good = evil.with_suffix(".pub").read_text(), (tmp_path / "good.pub").read_text()
    text = {
        "two lines": good + line,
        "options": f'command="/bin/sh" {line}',
        "private": evil.read_text(),
        "ca": f"cert-authority {line}",
        "truncated": line[:40] + "\n",
    }[case]
    before = server.layout.authorized_keys.read_text()
    done = boss.ssh("ssh-keys:add mallory", input=text)
    assert done.returncode == 2 and told in done.stderr, done
    assert server.layout.authorized_keys.read_text() == before
    assert Laptop(server, tmp_path / "m" / "tree", evil).ssh("version").returncode == 255


@pytest.mark.parametrize("name", ["bob;id -un", 'bob"', "$(id)", "Bob", "-bob", "bob'x", "bob\\x", ""])
def test_a_key_name_is_a_name(server: Server, tmp_path: Path, name: str) -> None:
    import shlex

    boss = Laptop(server, tmp_path / "boss" / "tree", server.add_key("boss", Role.ADMIN))
    before = server.layout.authorized_keys.read_text()
    done = boss.ssh(f"ssh-keys:add {shlex.quote(name)}", input="x")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert server.layout.authorized_keys.read_text() == before


def test_an_added_key_logs_in_as_itself_and_can_be_listed_and_removed(server: Server, tmp_path: Path) -> None:
    boss = Laptop(server, tmp_path / "boss" / "tree", server.add_key("boss", Role.ADMIN))
    new = tmp_path / "new"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", new], check=True)
    done = boss.ssh("shipit ssh-keys:add ci --app blog", input=new.with_suffix(".pub").read_text())
    assert done.returncode == 0 and "deploy for blog" in done.stdout, done
    assert "a comment" not in server.layout.authorized_keys.read_text()
    ci = Laptop(server, tmp_path / "ci" / "tree", new)
    assert "Hi ci" in ci.ssh().stdout
    assert "ci" in boss.ssh("ssh-keys:list").stdout and '"apps": [' in boss.ssh("ssh-keys:list --format json").stdout
    assert boss.ssh("ssh-keys:remove ci").returncode == 0
    assert ci.ssh().returncode == 255


def test_an_admin_is_an_admin_of_everything(server: Server, tmp_path: Path) -> None:
    boss = Laptop(server, tmp_path / "boss" / "tree", server.add_key("boss", Role.ADMIN))
    done = boss.ssh("ssh-keys:add x --role admin --app blog", input=(server.root / "key-boss.pub").read_text())
    assert done.returncode == 2 and "all apps" in done.stderr


def test_twenty_keys_added_at_once_are_twenty_keys(server: Server, tmp_path: Path) -> None:
    boss = Laptop(server, tmp_path / "boss" / "tree", server.add_key("boss", Role.ADMIN))
    running = []
    for i in range(20):
        key = tmp_path / f"k{i}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with key.with_suffix(".pub").open() as text:
            argv = [*boss.ssh_argv(), f"ssh-keys:add k{i}"]
            running.append(subprocess.Popen(argv, stdin=text, env=boss.env, stdout=subprocess.DEVNULL))
    assert [child.wait() for child in running] == [0] * 20
    lines = server.layout.authorized_keys.read_text().splitlines()
    assert sum(line.startswith("restrict,pty,command=") for line in lines) == 21
    assert len(Keyring(server.layout).all()) == 21


def test_idle_connections_do_not_keep_a_push_out(server: Server, laptop: Laptop) -> None:
    import socket

    server.make_app()
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
    assert laptop.push().returncode == 0
    for connection in idle:
        connection.close()


def test_the_sshd_block_is_what_sshd_understands(server: Server) -> None:
    from gate_server import SSHD

    asked = subprocess.run(
        [SSHD, "-T", "-f", server.root / "sshd_config", "-C", f"user={server.user},host=x,addr=127.0.0.1"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for line in ("disableforwarding yes", "passwordauthentication no", "permituserrc no", "authenticationmethods publickey",
                 "kbdinteractiveauthentication no", "clientaliveinterval 15"):  # fmt: skip
        assert line in asked.lower().splitlines(), line


def test_every_command_is_one_audit_line_without_values(
    server: Server, laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, because a test machine may have no journal."""
    import json
    import syslog

    from receiver.gate import gateway
    from receiver.system import audit

    lines: list[str] = []
    monkeypatch.setattr(audit, "_has_journal", lambda: True)
    monkeypatch.setattr(syslog, "syslog", lambda priority, text: lines.append(text))
    clean = dict(os.environ)
    run: Callable[[str], int] = lambda command: _as(gateway.serve, server, "alice", command)  # noqa: E731
    try:
        assert run("config:set blog SECRET=hunter2 --nonsense") != 0
        assert run("nonsense hunter2") == 2
        assert run("git-receive-pack 'Bad'") == 2
    finally:
        os.environ.clear()
        os.environ.update(clean)
    records = [json.loads(line) for line in lines]
    assert [(r["key"], r["verb"]) for r in records] == [
        ("alice", "config:set"), ("alice", "unknown"), ("alice", "refused"),
    ]  # fmt: skip
    assert all(r["fingerprint"].startswith("SHA256:") and r["result"] and r["from"] == "10.0.0.9" for r in records)
    assert "hunter2" not in "".join(lines)


def _as(serve: Callable[..., int], server: Server, name: str, command: str) -> int:
    os.environ["SSH_ORIGINAL_COMMAND"] = command
    os.environ["SSH_CONNECTION"] = "10.0.0.9 1 10.0.0.1 22"
    key = next(key for key in Keyring(server.layout).all() if key.name == name)
    return serve(server.layout, [name, key.fingerprint], server.scripts / "hooks", os.getpid())
