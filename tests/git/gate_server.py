"""A receiver without root's side: real sshd on loopback, real forced command, real git and hooks.

The agent is a recorder on the real unix socket. The worker is the real fork of the gateway, which does what a
function of the test says instead of deploying.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from receiver import wire
from receiver.caller import Role
from receiver.gate.keys import Keyring
from receiver.ledger.ledger import Ledger
from receiver.model import Release, Status
from receiver.names import AppName, key_name
from receiver.paths import Layout
from receiver.sources.git.commits import Commits
from receiver.system.render import render

CLONE = Path(__file__).resolve().parents[2]
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") or ""


WORKER = "worker.sock"
# In place of story/worker.py's `serve`, in the fork: hand over to the test, and end when it is done.
STAND_IN = """
import os, socket
from receiver.story import worker

def stand_in(layout, ledger, release, agent, held):
    worker.detach({{agent.fileno(), *held}}, worker.NAME)
    os.write(held[-1], f"{{os.getpid()}}\\n".encode())
    with socket.socket(socket.AF_UNIX) as test:
        test.connect({socket!r})
        test.sendall(f"deploy {{release.app}} {{release.number}}\\n".encode())
        test.recv(1)
    return 0

worker.serve = stand_in
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_python(directory: Path) -> Path:
    """An interpreter as an installation has it: a venv that finds the receiver without PYTHONPATH."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    site = next(directory.glob("lib/python*/site-packages"))
    (site / "shipit.pth").write_text(f"{CLONE}\n{sysconfig.get_paths()['purelib']}\n")
    return directory / "bin/python"


@dataclass
class Job:
    """The release that a worker is to make; the test's function makes it live, or not."""

    ledger: Ledger
    number: int
    connection: socket.socket

    @property
    def release(self) -> Release:
        return self.ledger.release(self.number)

    def say(self, text: str) -> None:
        with self.ledger.paths.release(self.number).log.open("a") as log:
            log.write(text + "\n")

    def live(self) -> None:
        release = self.release
        self.ledger.commit(release)
        self.ledger.finish(release, Status.LIVE)

    def fail(self, reason: str = "failed by the test") -> None:
        self.ledger.finish(self.release, Status.FAILED, reason)
        self.say(f" !     {reason}")


def make_live(job: Job) -> None:
    job.say(f"-----> Building {job.release.name}")
    job.live()


def make_fail(job: Job) -> None:
    job.say("-----> Building")
    job.fail("healthcheck failed")


def die(job: Job) -> None:
    job.say("-----> Building")


@dataclass
class Worker:
    """The other end of STAND_IN: `behaviour` is called for each release; `told` holds every line received."""

    layout: Layout
    behaviour: Callable[[Job], None] = make_live
    told: list[str] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        with connection:
            line = connection.makefile("rb").readline(200).decode()
            self.told.append(line.strip())
            _, app, number = line.split()
            self.behaviour(Job(Ledger(self.layout.app(AppName(app))), int(number), connection))


@dataclass
class AgentRecorder:
    """Stands in for libexec/agent: makes the directories of an app, says yes to everything else."""

    layout: Layout
    verbs: list[str] = field(default_factory=list)
    closed_unused: int = 0

    def serve(self, connection: socket.socket) -> None:
        import json

        with connection:
            asked = len(self.verbs)
            for line in connection.makefile("rb"):
                request = wire.decode_request(line)
                self.verbs.append(request.verb.value)
                if request.verb is wire.Verb.CREATE_APP:
                    paths = self.layout.app(request.app)
                    for directory in (paths.repo, paths.releases):
                        directory.mkdir(parents=True, exist_ok=True)
                connection.sendall(json.dumps({"ok": {"created": True}}).encode() + b"\n")
            self.closed_unused += len(self.verbs) == asked


def listen(path: Path, serve: Callable[[socket.socket], None]) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(64)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server


class Server:
    """One receiver below a temporary root."""

    def __init__(self, root: Path, python: Path) -> None:
        self.root = root
        self.layout = Layout(root)
        self.scripts = root / "scripts"
        self.port = free_port()
        self.user = getpass.getuser()
        self.worker = Worker(self.layout)
        self.agent = AgentRecorder(self.layout)
        self._python = python
        self._sockets: list[socket.socket] = []
        self._sshd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for directory in (self.layout.home, self.layout.apps, self.layout.etc, self.scripts / "hooks"):
            directory.mkdir(parents=True)
        self.root.chmod(0o755)
        (self.layout.home / ".ssh").mkdir(mode=0o700)
        self._write_scripts()
        self._sockets = [
            listen(self.root / WORKER, lambda c: self.worker.serve(c)),
            listen(self.layout.agent_socket, lambda c: self.agent.serve(c)),
        ]
        self._start_sshd()

    def stop(self) -> None:
        for server in self._sockets:
            # close() alone leaves accept() waiting on a number that the next test's socket may get.
            server.shutdown(socket.SHUT_RDWR)
            server.close()
        if self._sshd is not None:
            self._sshd.terminate()
            self._sshd.wait()

    def _write_scripts(self) -> None:
        """The repository's own hooks; the gateway with another interpreter and this root instead of `/`."""
        for hook in ("pre-receive", "post-receive"):
            shutil.copy(CLONE / "hooks" / hook, self.scripts / "hooks" / hook)
        self._script(
            self.scripts / "gateway",
            f"import sys\nfrom pathlib import Path\nfrom receiver.gate import keys\n"
            f"keys.COMMAND = {str(self.scripts / 'gateway')!r}\n"
            f"from receiver.gate import gateway\nfrom receiver.paths import Layout\n"
            f"{STAND_IN.format(socket=str(self.root / WORKER))}"
            f"raise SystemExit(gateway.serve(Layout(Path({str(self.root)!r})), sys.argv[1:],"
            f" Path({str(self.scripts / 'hooks')!r}), os.getpid()))",
        )

    def _script(self, path: Path, body: str) -> None:
        path.write_text(f"#!{self._python} -I\n{body}\n")
        path.chmod(0o755)

    def _start_sshd(self) -> None:
        keys = self.root / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys], check=True)
        match = render("sshd/shipit.conf.j2", user=self.user, authorized_keys=self.layout.authorized_keys)
        config = self.root / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {keys}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"PermitRootLogin forced-commands-only\nAcceptEnv LANG LC_*\nSubsystem sftp internal-sftp\n"
            f"MaxStartups 100\nMaxSessions 50\nLogLevel ERROR\n{match}"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self._sshd = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=(self.root / "sshd.log").open("wb"))
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.root / "sshd.log").read_text())

    def add_key(self, name: str, role: Role = Role.DEPLOY, apps: list[AppName] | None = None) -> Path:
        """Make a key pair, let it in, return the private key."""
        import receiver.gate.keys as keys

        private = self.root / f"key-{name}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", private], check=True)
        before, keys.COMMAND = keys.COMMAND, str(self.scripts / "gateway")
        try:
            Keyring(self.layout).add(key_name(name), private.with_suffix(".pub").read_text(), role, apps, time.time)
        finally:
            keys.COMMAND = before
        return private

    def make_app(self, app: str = "blog") -> Ledger:
        """What story.create does, without asking the agent."""
        ledger = self.ledger(app)
        ledger.paths.repo.mkdir(parents=True)
        ledger.paths.releases.mkdir()
        Commits(ledger.paths.repo).create()
        ledger.create()
        return ledger

    def ledger(self, app: str = "blog") -> Ledger:
        return Ledger(self.layout.app(AppName(app)))

    def ref(self, name: str, app: str = "blog") -> str:
        """Where a full ref name is in the app's repository; empty if there is none."""
        repo = self.layout.app(AppName(app)).repo
        done = subprocess.run(
            ["git", f"--git-dir={repo}", "rev-parse", "-q", "--verify", name], capture_output=True, text=True
        )
        return done.stdout.strip()


class Laptop:
    """A developer: a key, a work tree, git."""

    def __init__(self, server: Server, where: Path, key: Path) -> None:
        self.server = server
        self.tree = where
        self._key = key
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(where.parent), "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ann", "GIT_AUTHOR_EMAIL": "ann@example.org", "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "ann@example.org", "GIT_SSH_COMMAND": " ".join(self.ssh_argv()[:-1]),
        }  # fmt: skip

    def ssh_argv(self, *options: str) -> list[str]:
        return [
            "ssh", "-F", "/dev/null", "-i", str(self._key), "-p", str(self.server.port),
            "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oIdentitiesOnly=yes",
            "-oIdentityAgent=none", "-oLogLevel=ERROR", "-oBatchMode=yes", *options, f"{self.server.user}@127.0.0.1",
        ]  # fmt: skip

    def ssh(
        self, command: str = "", *options: str, input: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        argv = [*self.ssh_argv(*options), *([command] if command else [])]
        return subprocess.run(argv, input=input, capture_output=True, text=True, env=self.env, timeout=timeout)

    def git(self, *words: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["git", *words], cwd=self.tree, env=self.env, capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["git", *words], cwd=self.tree, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def init(self, app: str = "blog") -> Laptop:
        self.tree.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "prod", f"{self.server.user}@127.0.0.1:{app}")
        self.commit({"Procfile": "web: python3 app.py\n", "app.py": "print('hello')\n"}, "First")
        return self

    def commit(self, files: dict[str, str], subject: str = "Change") -> str:
        for name, text in files.items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD").stdout.strip()

    def push(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return self.git("push", "prod", *(words or ("main",)), check=False, timeout=timeout)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.05)


def held_push(
    server: Server, laptop: Laptop, verdict: Callable[[Job], None] = Job.live
) -> tuple[subprocess.Popen[str], threading.Event]:
    """A push whose deploy has begun, and the event that it waits for before it ends like this."""
    go = threading.Event()

    def behaviour(job: Job) -> None:
        job.say("-----> Building")
        go.wait(60)
        verdict(job)

    server.worker.behaviour = behaviour
    push = laptop.start("push", "prod", "main")
    wait_for(lambda: server.worker.told)
    return push, go
