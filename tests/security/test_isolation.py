"""Apps and builds are kept apart: what a hostile one tries on a real host, and where a secret may not be found."""

from __future__ import annotations

import json
import re

import pytest
from host.apps import asked, environment_of, files, live, pushed, say
from lab.client import Client, Repo
from lab.host import Host

# Put together here, so that a search of the server does not find this file.
CANARY = "-".join(("canary", "5up3r", "53cr3t", "v4lue"))
APPS = "/var/lib/shipit/apps"

# Reads, writes or connects, and reports what worked. One list for the app's own user and for a build.
ATTACK = r"""
import json, os, socket, sys

READ = [
    "{apps}/alpha/config/v2.json", "{apps}/alpha/slugs/v1/mark", "{apps}/alpha/slugs/v1/main.py",
    "{apps}/alpha/releases/app.json", "{apps}/alpha/releases/v1/release.json", "{apps}/alpha/releases/v1/log",
    "{apps}/alpha/repo.git/HEAD", "{apps}/alpha/data/private", "{apps}/beta/config/v1.json",
    "{apps}/beta/repo.git/HEAD", "/var/lib/shipit/home/keys.json", "/var/lib/shipit/home/.ssh/authorized_keys",
    "/etc/shadow", "/root/admin.pub", "/proc/{pid}/environ",
]
WRITE = [
    "/etc/evil", "/etc/cron.d/evil", "/etc/systemd/system/evil.service", "/etc/nginx/shipit/evil.conf",
    "/usr/lib/shipit/evil", "/usr/local/bin/evil", "{apps}/alpha/slugs/v1/evil", "{apps}/alpha/data/evil",
    "{apps}/alpha/releases/evil", "{apps}/alpha/repo.git/evil", "{apps}/alpha/cache/evil", "{apps}/beta/releases/evil",
    "{apps}/beta/releases/v1/release.json", "{apps}/beta/repo.git/evil", "{apps}/beta/config/evil",
    "{apps}/beta/slugs/v1/main.py", "{apps}/beta/slugs/evil", "{apps}/evil", "/run/shipit/evil",
    "/run/shipit/alpha/evil", "/var/lib/shipit/home/evil", "/home/evil", "/root/evil",
]
CONNECT = ["/run/shipit/agent.sock", "/run/shipit/alpha/{live}/web.1.sock"]
LIST = ["{apps}/alpha/config", "{apps}/alpha/data", "{apps}/alpha/slugs/v1", "/run/shipit/alpha", "/var/lib/shipit/home"]
worked = []


def attempt(what, path, act):
    try:
        act(path)
    except OSError:
        return
    worked.append(what + " " + path)


def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(path)


def write(path):
    open(path, "r+b" if os.path.exists(path) else "xb").close()


for path in READ:
    attempt("read", path, lambda p: open(p, "rb").read(1))
for path in WRITE:
    attempt("write", path, write)
for path in CONNECT:
    attempt("connect", path, connect)
for path in LIST:
    attempt("list", path, os.listdir)
for entry in os.listdir("/proc"):
    if entry.isdigit():
        for name in ("environ", "mem", "cwd/mark", "root/etc/hostname"):
            path = "/proc/" + entry + "/" + name
            try:
                foreign = os.stat("/proc/" + entry).st_uid != os.getuid()
            except OSError:
                continue
            if foreign:
                attempt("proc", path, lambda p: open(p, "rb").read(1))
attempt("kill", "{pid}", lambda p: os.kill(int(p), 0))
print(json.dumps(worked))
"""


@pytest.fixture(scope="module")
def alpha(laptop: Client, shared_host: Host) -> Repo:
    """The app that is attacked; v2 holds the canary."""
    repo = pushed(laptop, "alpha", "alpha")
    shared_host.sh(f"install -m 0600 -o app-alpha /dev/null {APPS}/alpha/data/private")
    result = say(laptop, "config:set", "alpha", f"SECRET={CANARY}", "PUBLIC=1")
    assert result.code == 0
    assert CANARY not in result.text
    return repo


@pytest.fixture(scope="module")
def beta(laptop: Client) -> Repo:
    """The app that attacks."""
    return pushed(laptop, "beta", "beta")


def attack(laptop: Client) -> str:
    number = live(laptop, "alpha")
    pid = next(row["pid"] for row in asked(laptop, "ps", "alpha"))
    values = {"apps": APPS, "live": number, "pid": pid}
    return re.sub(r"\{(apps|live|pid)\}", lambda match: str(values[match[1]]), ATTACK)


def test_the_attack_finds_what_is_open(laptop: Client, alpha: Repo, beta: Repo, shared_host: Host) -> None:
    """The proof that the attack can succeed at all: as root it gets everything that is there."""
    worked = json.loads(shared_host.run("python3", "-", input=attack(laptop)).out)
    shared_host.sh("rm -f /etc/evil $(find / -xdev -name evil -o -xdev -name 'evil.*' | tr '\\n' ' ')")
    assert f"read {APPS}/alpha/config/v2.json" in worked
    assert f"write {APPS}/beta/slugs/v1/main.py" in worked
    assert "connect /run/shipit/agent.sock" in worked
    assert any(line.startswith("connect /run/shipit/alpha/v") for line in worked)
    assert any(line.startswith("proc ") for line in worked)
    missed = [p for p in re.findall(r'"(/[^"]+|\{apps\}[^"]+)"', ATTACK.split("WRITE")[0]) if "{pid}" not in p]
    assert [p for p in missed if f"read {p.replace('{apps}', APPS)}" not in worked] == [], (
        "READ names what there is not"
    )


def test_an_app_gets_at_nothing_of_another_app_or_of_shipit(laptop: Client, alpha: Repo, beta: Repo) -> None:
    result = say(laptop, "run", "beta", "python", "-", input=attack(laptop))
    assert result.code == 0, str(result)
    assert json.loads(result.out) == []


@pytest.mark.parametrize("user", ["app-beta", "build-beta"])
def test_the_users_alone_keep_apps_apart_even_outside_of_the_sandbox(
    user: str, laptop: Client, alpha: Repo, beta: Repo, shared_host: Host
) -> None:
    result = shared_host.run("python3", "-", user=user, input=attack(laptop))
    own = {f"write {APPS}/beta/slugs/v1/main.py"} if user == "build-beta" else set()
    assert set(json.loads(result.out)) <= own
    shared_host.sh(f"test ! -e {APPS}/evil")


def test_an_app_cannot_change_its_own_code_or_history(laptop: Client, beta: Repo) -> None:
    tries = (
        "echo x >>main.py; touch new; rm mark; mkdir d; echo x >$DATA_DIR/mine && echo data; touch /tmp/t && echo tmp"
    )
    result = say(laptop, "run", "beta", "sh", "-c", f"({tries}) 2>/dev/null; cat mark; ls ..")
    assert result.out.split()[:3] == ["data", "tmp", "beta"], str(result)


HOSTILE = (
    "import subprocess, sys, os\n"
    "worked = subprocess.run([sys.executable, 'attack.py'], capture_output=True, text=True).stdout\n"
    "open('worked.json', 'w').write(worked)\n"
    "open('environment', 'w').write('\\n'.join(os.environ))\n"
    "quiet = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.DEVNULL)\n"
    "subprocess.Popen(['setsid', 'sleep', '4444'], **quiet)\n"
    "subprocess.Popen(['nohup', 'sh', '-c', 'sleep 4444; sleep 4444'], start_new_session=True, **quiet)\n"
    "from setuptools import setup\n"
    "setup(name='hostile', version='1', py_modules=['main'])\n"
)


def test_a_hostile_build_gets_nowhere_and_leaves_no_process(
    laptop: Client, alpha: Repo, beta: Repo, shared_host: Host
) -> None:
    digest = f"cd {APPS}/beta/slugs/v1 && find . -type f -exec sha256sum {{}} + | sort | sha256sum"
    before = shared_host.sh(digest).out
    link = "os.path.lexists('shadow') or os.symlink('/etc/shadow', 'shadow')\n"
    beta.commit({"setup.py": HOSTILE.replace("from setup", link + "from setup"), "attack.py": attack(laptop)})
    result = beta.push()
    assert result.code == 0, str(result)
    slug = f"{APPS}/beta/slugs/v2"
    assert json.loads(shared_host.read(f"{slug}/worked.json")) == []
    assert shared_host.sh(digest).out == before, "the release that a rollback returns to was changed"
    assert not shared_host.run("pgrep", "-f", "sleep 4444", check=False).ok, "a process outlived its build"
    assert not shared_host.run("pgrep", "-u", "build-beta", check=False).ok
    seen = set(shared_host.read(f"{slug}/environment").splitlines())
    assert not {name for name in seen if "SECRET" in name or "SSH" in name or "GIT_" in name}, seen
    special = shared_host.sh(f"find {APPS}/beta/slugs -perm /6000 -type f -o -type b -o -type c").out
    assert special == "", "a set-uid, set-gid or device file came out of a build"
    root_hash = shared_host.read("/etc/shadow").split("\n")[0]
    assert root_hash not in result.text
    assert "sleep" not in shared_host.run("ps", "-eo", "args").out


def test_a_config_var_is_found_nowhere_but_in_config_and_in_the_process(
    laptop: Client, alpha: Repo, shared_host: Host
) -> None:
    assert environment_of(laptop, "alpha")["SECRET"] == CANARY
    alpha.commit({"mark": "next\n"})
    assert CANARY not in alpha.push().text
    alpha.commit({"main.py": "raise RuntimeError('crash')\n"})
    assert CANARY not in alpha.push().text
    assert say(laptop, "rollback", "alpha").code == 0
    assert say(laptop, "run", "alpha", "true").code == 0
    spots = "/bin /boot /etc /home /lib /opt /root /run /srv /tmp /usr /var"
    # The pattern is put together inside, so that this search does not find itself.
    script = (
        f"p=$(printf '%s-%s' {CANARY.rpartition('-')[0]} {CANARY.rpartition('-')[2]}); grep -rlaF -D skip -e $p {spots}"
    )
    found = shared_host.sh(script, check=False).out.split()
    allowed = re.compile(rf"{APPS}/alpha/config/v\d+\.json")
    assert [path for path in found if not allowed.fullmatch(path)] == []
    assert any("config/v" in path for path in found), "the search finds nothing at all"
    modes = shared_host.sh(f"stat -c '%a %U' {APPS}/alpha/config {APPS}/alpha/config/*").out.split("\n")
    assert {line for line in modes if line} <= {"700 root", "600 root", "400 root"}
    for words in (
        ("journalctl", "-o", "export", "--no-pager"),
        ("systemctl", "show", "*", "--all"),
        ("ps", "-eo", "args"),
    ):
        assert CANARY not in shared_host.run(*words).out, words
    holders = shared_host.sh(
        f"p={CANARY}; for d in /proc/[0-9]*; do tr '\\0' '\\n' <$d/environ 2>/dev/null | grep -qF SECRET=$p && "
        "stat -c %U $d; done; true"
    ).out.split()
    assert set(holders) == {"app-alpha"}


@pytest.mark.parametrize("user", ["app-beta", "nobody"])
def test_systemd_shows_nobody_a_secret(user: str, laptop: Client, alpha: Repo, beta: Repo, shared_host: Host) -> None:
    unit = f"shipit-alpha-web-{live(laptop, 'alpha')}@1.service"
    shown = shared_host.run("systemctl", "show", unit, "--all", user=user, check=False)
    assert CANARY not in shown.text
    assert "SECRET" not in shown.text
    cat = shared_host.run("systemctl", "cat", unit, user=user, check=False)
    assert CANARY not in cat.text
    logs = shared_host.run("journalctl", "-u", unit, "-n", "5", "-q", user=user, check=False)
    assert logs.out == "", "one app's user reads another's log"


def test_a_live_process_is_sandboxed_by_systemds_own_measure(laptop: Client, alpha: Repo, shared_host: Host) -> None:
    unit = f"shipit-alpha-web-{live(laptop, 'alpha')}@1.service"
    told = shared_host.run("systemd-analyze", "security", "--no-pager", unit).out
    score = re.search(r"Overall exposure level for .*: ([0-9.]+)", told)
    assert score, str(told)
    assert float(score[1]) <= 3.0, str(told)
    pid = next(row["pid"] for row in asked(laptop, "ps", "alpha"))
    status = shared_host.read(f"/proc/{pid}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)


def test_shipits_own_user_reads_no_config_and_writes_no_unit(alpha: Repo, shared_host: Host) -> None:
    """The gateway's user can deploy what it may push; root's things and the apps' files are not its own."""
    refused = [
        f"cat {APPS}/alpha/config/v2.json",
        f"ls {APPS}/alpha/config",
        f"touch {APPS}/alpha/slugs/v1/evil",
        f"cat {APPS}/alpha/data/private",
        f"mkdir {APPS}/evil",
        f"mv {APPS}/alpha {APPS}/gone",
        "touch /etc/systemd/system/evil.service",
        "touch /etc/nginx/shipit/evil.conf",
        "touch /usr/lib/shipit/current/evil",
        "touch /usr/lib/shipit/current/share/shipit/hooks/post-receive",
        "echo >/etc/shipit/shipit.yml",
        "sudo -n true",
    ]
    for script in refused:
        assert not shared_host.sh(script, user="shipit", check=False).ok, f"shipit may: {script}"


def test_a_link_in_a_commit_shows_nothing_of_the_server(laptop: Client, beta: Repo, shared_host: Host) -> None:
    """Nothing with more rights than the app follows a path that came in a commit."""
    secret = shared_host.sh("head -c 40 /etc/shadow").out
    repo = laptop.repo("linked", files("linked"))
    for name in ("Procfile", "shipit.yml", "requirements.txt"):
        (repo.path / name).unlink(missing_ok=True)
        (repo.path / name).symlink_to("/etc/shadow")
        repo.git("add", "-A")
        repo.git("commit", "-q", "-m", f"{name} is a link")
        result = repo.push()
        assert secret not in result.text
        repo.git("rm", "-q", "-f", name)
        repo.commit(files("linked"))
    result = repo.push()
    assert result.code == 0, str(result)
