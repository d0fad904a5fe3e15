"""Who has taken the user `shipit` gets no further, and nobody else gets to the agent at all (threat rows 22, 32, 60-65)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import Any

import pytest
from host.apps import asked, live, pushed, say, unwell
from lab.client import Client, Repo
from lab.host import Host

from receiver.model import Status, decode_release
from receiver.records import encode

APPS = "/var/lib/shipit/apps"
# More by SHIPIT_TEST_AGENT_CALLS.
SECRET = "/root/secret.json"
CALLS = int(os.environ.get("SHIPIT_TEST_AGENT_CALLS", "60"))
VERBS = {
    "ping": {}, "adopt": {"app": "alpha", "release": 1}, "create_app": {"app": "alpha"}, "destroy_app": {"app": "alpha"},
    "snapshot_config": {"app": "alpha", "release": 1, "base": 0, "set": {}, "unset": []},
    "read_config": {"app": "alpha", "release": 1}, "build": {"app": "alpha", "release": 1},
    "release_command": {"app": "alpha", "release": 1}, "start": {"app": "alpha", "release": 1},
    "check_command": {"app": "alpha", "release": 1, "process": "web", "index": 1},
    "boot_with": {"app": "alpha", "release": 1}, "stop": {"app": "alpha", "release": 1, "wait": False},
    "restart": {"app": "alpha", "release": 1, "process": "web"}, "processes": {"app": "alpha"}, "proxy": {"app": "alpha"},
    "run": {"app": "alpha", "release": 1, "run": "ab" * 20, "tty": False}, "prune": {"app": "alpha", "releases": [1]},
    "cancel": {"app": "alpha", "release": 1}, "reconcile": {"app": "alpha"},
}  # fmt: skip

# Sends each line of its input to the agent, with the descriptors of the files that its arguments name; prints the
# answers, `null` where there was none. After one that ended the connection comes a new one.
ASK = """
import array, json, os, socket, sys
agent = None
for line in sys.stdin.buffer:
    fds = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]
    told = ""
    try:
        if agent is None:
            agent = socket.socket(socket.AF_UNIX)
            agent.settimeout(60)
            agent.connect("/run/shipit/agent.sock")
        agent.sendmsg([line[:1000]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        agent.sendall(line[1000:])
        told = agent.makefile().readline()
    except OSError as error:
        told = json.dumps({"refused": error.strerror})
    for fd in fds:
        os.close(fd)
    if '"ok"' not in told and '"exit": 2' not in told or len(line) > 2**20:
        agent = None
    print(told.strip() or "null", flush=True)
"""


@pytest.fixture(scope="module")
def alpha(laptop: Client, shared_host: Host) -> Repo:
    """The app of somebody else."""
    shared_host.write("/usr/local/lib/ask.py", ASK)
    return pushed(laptop, "alpha", "alpha")


@pytest.fixture(scope="module")
def maze(laptop: Client, alpha: Repo) -> Repo:
    """The app whose ledger the attacker bends; v2 is live."""
    repo = pushed(laptop, "maze", "one")
    repo.commit({"mark": "two\n"})
    assert repo.push().ok
    return repo


def ask(host: Host, *requests: object, user: str = "shipit", files: tuple[str, ...] = ()) -> list[Any]:
    """What the agent answers to each request (bytes are sent as they are)."""
    lines = b"".join(r + b"\n" if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in requests)
    told = host.run("python3", "/usr/local/lib/ask.py", *files, user=user, input=lines).out.splitlines()
    assert len(told) == len(requests), told
    return [json.loads(line) for line in told]


def a(verb: str, **changes: object) -> dict[str, object]:
    known: dict[str, object] = dict(VERBS[verb])
    return {"v": 1, "verb": verb, **known, **changes}


def untouched(host: Host) -> str:
    """All that no request may change: names, modes, owners, sizes, times; what belongs to `maze` is left out."""
    spots = "/etc /root /usr/local /usr/lib/shipit /var/lib/shipit/home/.ssh"
    spots += "".join(f" {APPS}/alpha/{name}" for name in ("slugs", "config", "data", "releases"))
    # The worker marks the pool of connections that counts a moment after its verdict (ledger/pool.py).
    own = "-path /etc/nginx/shipit -o -name '*shipit-maze*' -o -name __pycache__ -o -path '*/releases/v1/one'"
    shown = "-type f -printf '%p %m %u %g %s %T@\\n' -o -printf '%p %m %u %g %l\\n'"
    return host.sh(f"find {spots} \\( {own} \\) -prune -o {shown} | sort").out


def test_no_request_can_say_more_than_its_verb_knows(alpha: Repo, shared_host: Host) -> None:
    before = untouched(shared_host)
    extra = {"path": "/etc/x", "uid": 0, "user": "root", "unit": "x.service", "argv": ["id"], "env": {"A": "b"},
             "cwd": "/", "template": "x", "command": "id", "owner": "root"}  # fmt: skip
    foreign: list[object] = [a(verb, **{name: value}) for verb in VERBS for name, value in extra.items()]
    names = [
        "../alpha",
        "/etc",
        "alpha/../beta",
        "root",
        "shipit",
        "a;id",
        "$(id)",
        "a\n",
        "",
        "..",
        "Alpha",
        None,
        7,
        ["alpha"],
    ]
    foreign += [a(verb, app=name) for verb in VERBS if "app" in VERBS[verb] for name in names if name != "root"]
    foreign += [a("start", release=n) for n in (-1, 1.5, 10**12, "1", True, None)]
    foreign += [a("run", run=run) for run in ("../x", "", "ab" * 19, "/etc/passwd")]
    foreign += [a("restart", process=p) for p in ("../web", "web@1.service shipit-alpha", "*")]
    foreign += [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\x00",
        b"[" * 100_000,
        b'{"v": 1, "verb": "exec"}',
        b'{"v": 2, "verb": "ping"}',
    ]
    told = ask(shared_host, *foreign)
    wrong = [sent for sent, answer in zip(foreign, told, strict=True) if not answer or "error" not in answer]
    assert wrong == []
    assert not any("Traceback" in json.dumps(answer) for answer in told)
    too_long = ask(shared_host, b'{"v": 1, "verb": "' + b"x" * 2**21 + b'"}')[0]
    assert too_long is None or "error" in too_long or "refused" in too_long
    # Descriptors where none belong, too few, and too many.
    assert "error" in ask(shared_host, a("ping"), files=("/dev/null",))[0]
    assert "error" in ask(shared_host, a("build"), files=("/dev/null",))[0]
    assert ask(shared_host, a("run"), files=("/dev/null",) * 8)[0].keys() <= {"error", "refused"}
    assert untouched(shared_host) == before
    assert ask(shared_host, {"v": 1, "verb": "ping"}) == [{"ok": {}}]


@pytest.mark.parametrize("user", ["app-alpha", "build-alpha", "www-data", "nobody"])
def test_nobody_else_reaches_the_agent(user: str, alpha: Repo, shared_host: Host) -> None:
    assert ask(shared_host, a("ping"), user=user) == [{"refused": "Permission denied"}]
    assert not shared_host.sh("cat </dev/tcp/0/1; nc -U /run/shipit/worker.sock", user=user, check=False).ok


def test_the_kernel_says_who_asks_and_not_the_group_or_the_message(alpha: Repo, shared_host: Host) -> None:
    """Somebody whom the socket's mode lets in is still not `shipit`."""
    words = "setpriv --reuid=nobody --regid=shipit --clear-groups python3 /usr/local/lib/ask.py"
    claim = json.dumps({"v": 1, "verb": "ping", "uid": 0})
    told = [shared_host.sh(words, input=line + "\n").out for line in (json.dumps(a("ping")), claim)]
    assert all("ok" not in (json.loads(line) or {}) for line in told), told
    assert '"result": "refused"' in shared_host.journal("-t", "shipit-agent")


# While this runs, each of these names is by turns what it was, a link out, and not there.
BEND = f"""
import os
releases, aside = "{APPS}/maze/releases", "/var/lib/shipit/home/aside"
targets = ["{SECRET}", "/etc/shadow", "/root", "/etc", "{APPS}/alpha/releases", "../../alpha/releases/v1",
    "../../../../../../etc", "/proc/self/root", "{APPS}/alpha/config", "/run/shipit/agent.sock"]
names = ["v1", "v2", "app.json", "current", "app.lock", "app.json.lock", "queue.lock", "runs", "v2/release.json",
    "v2/sockets", "v2/build.json", "v2/log", "v2/alive"]
os.makedirs(aside, exist_ok=True)
n = 0
while not os.path.exists(aside + "/stop"):
    path, target, kept = f"{{releases}}/{{names[n % len(names)]}}", targets[n // len(names) % len(targets)], f"{{aside}}/kept"
    n += 1
    there = os.path.lexists(path)
    if there:
        os.rename(path, kept)
    os.symlink(target, path)
    for _ in range(n % 7 * 100):
        os.lstat(path)
    os.unlink(path)
    if there:
        os.rename(kept, path)
print(n, flush=True)
"""


def test_a_ledger_that_is_bent_under_its_hands_leads_the_agent_nowhere(
    laptop: Client, maze: Repo, alpha: Repo, shared_host: Host
) -> None:
    """Links are swapped in and out while root acts on these names."""
    shared_host.write(SECRET, json.dumps({"app": "maze", "SECRET": "the-canary-of-root"}), mode=0o600)
    shared_host.write("/usr/local/lib/bend.py", BEND)
    before = untouched(shared_host)
    bending = shared_host.start("exec python3 /usr/local/lib/bend.py", user="shipit")
    changes: dict[str, dict[str, object]] = {
        "processes": {}, "read_config": {"release": 2}, "proxy": {}, "reconcile": {}, "boot_with": {"release": 2},
        "prune": {"releases": [1000]}, "start": {"release": 2}, "snapshot_config": {"release": 3}, "stop": {},
        "cancel": {"release": 2}, "create_app": {}, "restart": {"release": 2},
    }  # fmt: skip
    told: list[Any] = []
    try:
        while len(told) < CALLS:
            told += ask(shared_host, *(a(verb, app="maze", **fields) for verb, fields in changes.items()))
    finally:
        shared_host.sh("touch /var/lib/shipit/home/aside/stop")
        turns = int(bending.wait().out)
        shared_host.sh("rm -rf /var/lib/shipit/home/aside")
    assert turns > CALLS, "the names were not bent often enough to matter"
    assert any("ok" in answer for answer in told) and any("error" in answer for answer in told), told[:20]
    said = json.dumps(told) + shared_host.journal("-t", "shipit-agent", lines=9000)
    assert "the-canary-of-root" not in said
    assert shared_host.read("/etc/shadow").splitlines()[0] not in said
    assert untouched(shared_host) == before
    assert laptop.get("alpha").body == "alpha"
    shared_host.sh("shipit doctor --fix", check=False)
    assert unwell(shared_host) == []
    maze.commit({"mark": "three\n"})
    assert maze.push().ok


TAR = """
import io, tarfile
def entry(name, kind=tarfile.REGTYPE, link="", mode=0o755, data=b"x"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    tar.addfile(info, io.BytesIO(data))
with tarfile.open("/tmp/hostile.tar", "w") as tar:
    entry("mark")
    entry("../up"); entry("../../../../../../etc/evil"); entry("/etc/evil"); entry("/var/lib/shipit/apps/alpha/slugs/v1/evil")
    entry("out", tarfile.SYMTYPE, "/etc"); entry("out/evil")
    entry("near", tarfile.SYMTYPE, "../v1"); entry("near/evil")
    entry("data", tarfile.SYMTYPE, "/var/lib/shipit/apps/alpha/data"); entry("data/evil")
    entry("hard", tarfile.LNKTYPE, "/etc/shadow"); entry("harder", tarfile.LNKTYPE, "out/shadow")
    entry("device", tarfile.CHRTYPE); entry("block", tarfile.BLKTYPE); entry("root", mode=0o6755)
"""


def test_a_hostile_archive_leaves_its_directory_nowhere(maze: Repo, alpha: Repo, shared_host: Host) -> None:
    """Given to the agent as a build's source by somebody who is `shipit`; git's own archives hold nothing of this."""
    before = untouched(shared_host)
    shared_host.sh("python3 -", user="shipit", input=TAR)
    record = decode_release(shared_host.read(f"{APPS}/maze/releases/v1/release.json").encode())
    number = 77
    # With a checksum that fits: whoever is `shipit` can make that, too.
    record = replace(record, number=number, slug=number, environment=number, status=Status.BUILDING)
    plan = json.dumps({"root": "", "environment": {}, "steps": [], "link": None})
    for name, body in (("release.json", encode(record).decode()), ("build.json", plan)):
        shared_host.sh(
            f"cd {APPS}/maze/releases && mkdir -p v{number} && cat >v{number}/{name} && chmod 0644 v{number}/{name}",
            user="shipit", input=body,
        )  # fmt: skip
    shared_host.sh("chmod 0666 /tmp/hostile.tar; install -m 0666 /dev/null /tmp/said; chown shipit /tmp/said")
    told = ask(shared_host, a("build", app="maze", release=number), files=("/tmp/hostile.tar", "/tmp/said"))[0]
    said = shared_host.read("/tmp/said")
    assert "ok" in told, told
    assert shared_host.exists(f"{APPS}/maze/slugs/v{number}/mark"), f"it was not even unpacked: {told} {said}"
    assert "hard" in said, "tar refused nothing"
    assert untouched(shared_host) == before
    assert shared_host.sh("find / -xdev \\( -name evil -o -name up \\) -newer /tmp/hostile.tar -not -path '/proc/*'").out.split() in (
        [], [f"{APPS}/maze/slugs/v{number}/evil"],
    )  # fmt: skip
    odd = shared_host.sh(
        f"find {APPS}/maze/slugs \\( -type b -o -type c -o -perm /6000 -type f -o -links +1 -type f \\)"
    ).out
    assert odd == ""
    shared_host.sh(f"rm -r {APPS}/maze/releases/v{number} {APPS}/maze/slugs/v{number} /tmp/hostile.tar")


def test_shipit_can_start_kill_trace_or_read_nothing_that_is_not_its_own(
    laptop: Client, alpha: Repo, shared_host: Host
) -> None:
    """Twenty ways on from the user that faces the network; test_isolation.py tries the files."""
    pid = next(row["pid"] for row in asked(laptop, "ps", "alpha"))
    unit = f"shipit-alpha-web-{live(laptop, 'alpha')}@1.service"
    refused = [
        "systemctl stop " + unit,
        "systemctl start nginx",
        "systemctl set-property " + unit + " MemoryMax=1",
        "systemctl enable --now cron.service",
        "systemctl daemon-reload",
        "systemctl edit --full " + unit,
        "systemd-run --wait id",
        "systemd-run --wait -p User=root id",
        "systemd-run --wait -p User=app-alpha cat /etc/shadow",
        "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager "
        f"StopUnit ss {unit} replace",
        "loginctl enable-linger shipit",
        f"kill -9 {pid}",
        f"cat /proc/{pid}/environ",
        f"cat /proc/{pid}/maps",
        f"ls /proc/{pid}/root/",
        f"python3 -c 'import ctypes; raise SystemExit(ctypes.CDLL(None).ptrace(16, {pid}, 0, 0) != 0)'",
        "kill -HUP $(cat /run/nginx.pid)",
        f"cat /proc/{pid}/fd/0",
        "su -c id",
        "setpriv --reuid=app-alpha --regid=app-alpha --clear-groups id",
        "unshare --mount id",
        "mount -t tmpfs x /mnt",
        f"chown shipit {APPS}/alpha/config",
        f"ln {APPS}/alpha/slugs/v1/main.py /var/lib/shipit/home/linked",
    ]
    worked = [script for script in refused if shared_host.sh(script, user="shipit", check=False).ok]
    assert worked == []
    assert laptop.get("alpha").body == "alpha"
    assert shared_host.run("systemctl", "is-active", unit).out == "active\n"


def test_whoever_is_shipit_cannot_make_root_run_git_or_anything_from_a_repository(
    laptop: Client, alpha: Repo, maze: Repo, shared_host: Host
) -> None:
    """A repository's configuration and hooks can name programs; root looks into none, whatever root types."""
    trap = "/tmp/trap-$(id -un)"
    config = "".join(
        f"[{section}]\n\t{key} = \"touch {trap};false\"\n"
        for section, key in (
            ("core", "fsmonitor"), ("core", "sshCommand"), ("core", "pager"), ("core", "editor"), ("core", "gitProxy"),
            ("gpg", "program"), ("receive", "procReceiveRefs"), ("uploadpack", "packObjectsHook"), ("diff", "external"),
        )
    )  # fmt: skip
    hook = f"#!/bin/sh\ntouch {trap}\n"
    repo = f"{APPS}/maze/repo.git"
    shared_host.sh(f"cd {repo} && cp config config.before && cat >>config", user="shipit", input=config)
    for name in ("reference-transaction", "post-checkout", "pre-receive", "update", "post-receive", "pre-auto-gc"):
        shared_host.sh(
            f"cd {repo} && mkdir -p hooks && cat >hooks/{name} && chmod 0755 hooks/{name}", user="shipit", input=hook
        )
    shared_host.sh(f"cd {repo} && git --git-dir=. update-ref refs/heads/main HEAD~1", user="shipit", check=False)
    shared_host.sh(
        f"rm -f /tmp/trap-*; cd {repo} && git --git-dir=. status; rm -f /tmp/trap-shipit", user="shipit", check=False
    )
    for words in (("doctor",), ("doctor", "--fix"), ("status", "maze"), ("releases", "maze"), ("deploy", "maze")):
        shared_host.run("shipit", *words, check=False)
    shared_host.run("systemctl", "start", "shipit-reconcile.service", check=False)
    assert not shared_host.exists("/tmp/trap-root"), "root ran a program that a repository names"
    shared_host.sh(f"cd {repo} && mv config.before config && rm -r hooks", user="shipit")
    assert laptop.get("maze").status == 200


def test_the_hooks_of_all_repositories_are_roots(alpha: Repo, shared_host: Host) -> None:
    there = "/usr/lib/shipit/current/share/shipit/hooks"
    assert {"pre-receive", "post-receive"} <= set(shared_host.sh(f"ls {there}").out.split())
    writable = shared_host.sh(f"find -L {there} /usr/lib/shipit -writable -not -type l", user="shipit", check=False).out
    assert writable == ""
    theirs = shared_host.sh("find -L /usr/lib/shipit -not -user root", check=False).out
    assert theirs == ""
    for script in (f"mv {there} {there}.x", "ln -sfn /tmp /usr/lib/shipit/current", f"echo >>{there}/pre-receive"):
        assert not shared_host.sh(script, user="shipit", check=False).ok, script
    # A hook of the repository's own is not run: core.hooksPath names the shared ones.
    hook = "#!/bin/sh\ntouch /tmp/own-hook\nexit 1\n"
    shared_host.sh(
        f"cd {APPS}/alpha/repo.git && mkdir -p hooks && cat >hooks/pre-receive && chmod 0755 hooks/pre-receive",
        user="shipit", input=hook,
    )  # fmt: skip
    alpha.commit({"mark": "alpha\n", "more": "x"})
    assert alpha.push().ok
    assert not shared_host.exists("/tmp/own-hook")


def test_what_a_destroyed_app_leaves_belongs_to_nobody_who_comes_after(
    laptop: Client, alpha: Repo, shared_host: Host
) -> None:
    """Files, shared memory and processes are gone before the uid is free again."""
    pushed(laptop, "ghost", "ghost")
    leave = (
        "import os, ctypes, subprocess\n"
        "for place in ('/dev/shm', '/tmp', '/var/tmp', '/run/shipit/ghost', os.environ['DATA_DIR'], '/dev/mqueue', '/run/lock'):\n"
        "    try:\n        open(place + '/left', 'w').write('x')\n        print('left', place)\n"
        "    except OSError:\n        pass\n"
        "ctypes.CDLL(None).shmget(4242, 4096, 0o1666)\n"
    )
    result = say(laptop, "run", "ghost", "python3", "-", input=leave)
    assert "left /dev/shm" in result.out and "/data" in result.out, str(result)
    ids = shared_host.sh("id -u app-ghost; id -u build-ghost; id -g app-ghost").out.split()
    gone = say(laptop, "apps:destroy", "ghost", "--force")
    assert gone.code == 0, str(gone)
    wanted = " -o ".join([f"-uid {ids[0]}", f"-uid {ids[1]}", f"-gid {ids[2]}"])
    spots = "/ /dev/shm /dev/mqueue /run /tmp"
    assert shared_host.sh(f"find {spots} -xdev \\( {wanted} \\) -not -path '/proc/*'", check=False).out == ""
    assert not re.search(rf"\b({ids[0]}|app-ghost)\b", shared_host.sh("ipcs -m").out)
    assert shared_host.sh(f"pgrep -U {ids[0]},{ids[1]}", check=False).out == ""
    pushed(laptop, "heir", "heir")
    heirs = shared_host.sh("id -u app-heir; id -u build-heir").out.split()
    assert set(heirs) & set(ids), "the uids were not given out again, so this shows nothing"
    seen = say(
        laptop, "run", "heir", "sh", "-c", "find / -xdev -user $(id -u) -not -path '/proc/*' 2>/dev/null; ls /dev/shm"
    )
    assert [
        line
        for line in seen.out.split()
        if not line.startswith(("/var/lib/shipit/apps/heir", "/run/shipit/heir", "/tmp", "/var/tmp", "/dev/"))
    ] == []
    assert "ghost" not in seen.out and "left" not in seen.out
