"""A developer's laptop in a directory: its own home, key, known hosts and repositories. And a constant load."""

from __future__ import annotations

import http.client
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .background import Background
from .base import Result, run
from .load import Load, Report
from .machine import PATH, Machine

Files = Mapping[str, "str | bytes | None"]


@dataclass(frozen=True)
class Answer:
    """What a server said to one request."""

    status: int
    body: str
    headers: Mapping[str, str]


class Client:
    """Someone with a key who pushes to a machine and runs commands on it.

    With `key` (a private key's path) it uses that, otherwise one of its own, which no machine knows yet.
    """

    def __init__(
        self, machine: Machine, home: Path, *, key: Path | None = None, user: str = "shipit", port: int = 22
    ) -> None:
        self.machine = machine
        self.home = home
        self.user = user
        self.port = port
        self.dir = home / ".ssh"
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.key = self.dir / "id_ed25519"
        if key is None:
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{home.name}@laptop", "-f", self.key])
        else:
            shutil.copy(key, self.key)
            shutil.copy(key.with_suffix(".pub"), self.key.with_suffix(".pub"))
            self.key.chmod(0o600)
        self._config()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Dev Eloper\n\temail = dev@laptop.test\n"
            "[init]\n\tdefaultBranch = main\n[commit]\n\tgpgSign = false\n"
        )

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    @property
    def ip(self) -> str:
        return self.machine.ip

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": f"ssh -F {self.dir / 'config'}",
        }

    def git_command(self) -> str:
        """What to type before `git` to push as this client from anywhere."""
        return f"GIT_SSH_COMMAND='{self.environment['GIT_SSH_COMMAND']}'"

    def _config(self) -> None:
        (self.dir / "config").write_text(
            f"Host *\n  User {self.user}\n  Port {self.port}\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  IdentityAgent none\n  UserKnownHostsFile {self.dir / 'known_hosts'}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  BatchMode yes\n  ConnectTimeout 10\n"
            "  ControlMaster no\n  ControlPath none\n  AddKeysToAgent no\n"
        )

    def trust(self) -> None:
        """Know the machine's host keys as they are now; done once by itself before the first connection."""
        keys = self.machine.sh("cat /etc/ssh/ssh_host_*_key.pub").out.splitlines()
        name = self.ip if self.port == 22 else f"[{self.ip}]:{self.port}"
        (self.dir / "known_hosts").write_text("".join(f"{name} {' '.join(key.split()[:2])}\n" for key in keys))

    def _trusting(self) -> None:
        if not (self.dir / "known_hosts").exists():
            self.trust()

    def ssh_words(self, *words: str, tty: bool = False) -> list[str]:
        self._trusting()
        return ["ssh", "-F", str(self.dir / "config"), "-tt" if tty else "-T", self.ip, *words]

    def ssh(
        self,
        *words: str,
        tty: bool = False,
        input: str | bytes | None = None,
        check: bool = False,
        timeout: float = 120,
    ) -> Result:
        """A command over ssh, as `ssh shipit@IP WORDS` sends it (ssh joins the words with spaces)."""
        argv = self.ssh_words(*words, tty=tty)
        return run(argv, input=input, env=self.environment, check=check, timeout=timeout, cwd=self.home)

    def start_ssh(self, *words: str, tty: bool = False) -> Background:
        """A command over ssh that runs on while the test does something else."""
        return Background(self.ssh_words(*words, tty=tty), env=self.environment, cwd=self.home)

    def repo(self, app: str, files: Files | None = None, *, name: str | None = None) -> Repo:
        """A repository with one commit of these files and the remote `shipit` = shipit@IP:APP."""
        return Repo(self, app, self.home / (name or app), files or {})

    def run(self, *words: str, check: bool = True, input: str | bytes | None = None, timeout: float = 120) -> Result:
        """Any command on the laptop (rsync, scp, git …), with its home and its ssh."""
        self._trusting()
        return run(words, env=self.environment, cwd=self.home, check=check, input=input, timeout=timeout)

    def domain(self) -> str:
        """Apps without a domain of their own answer at APP.DOMAIN."""
        settings = self.machine.sh("cat /etc/shipit/shipit.yml", check=False).out
        found = re.search(r"^domain:\s*['\"]?([^'\"\s#]+)", settings, re.MULTILINE)
        return found[1] if found else "localhost"

    def get(
        self,
        app: str,
        path: str = "/",
        *,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        host: str | None = None,
        port: int = 80,
        timeout: float = 10,
    ) -> Answer:
        """One request to an app (or, with `host`, to any name) on the machine; redirects are not followed."""
        named = {"Host": host or f"{app}.{self.domain()}", "Connection": "close", **(headers or {})}
        return fetch(self.ip, path, port=port, method=method, body=body, headers=named, timeout=timeout)

    def load(self, app: str, path: str = "/", **options: bool | float | int | str | None) -> Load:
        """A constant load on an app, started; see Load."""
        options.setdefault("host", f"{app}.{self.domain()}")
        return Load(self.ip, path=path, **options)  # type: ignore[arg-type]


def fetch(
    address: str,
    path: str = "/",
    *,
    port: int = 80,
    method: str = "GET",
    body: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10,
) -> Answer:
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        return Answer(answer.status, text, dict(answer.getheaders()))
    finally:
        connection.close()


class Repo:
    """A git repository on a client's laptop."""

    def __init__(self, client: Client, app: str, path: Path, files: Files) -> None:
        self.client = client
        self.app = app
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "shipit", self.url)
        if files:
            self.commit(files, "first")

    @property
    def url(self) -> str:
        client = self.client
        if client.port == 22:
            return f"{client.user}@{client.ip}:{self.app}"
        return f"ssh://{client.user}@{client.ip}:{client.port}/{self.app}"

    def git(self, *words: str, check: bool = True, input: str | bytes | None = None, timeout: float = 120) -> Result:
        argv = ["git", *words]
        env = self.client.environment
        return run(argv, env=env, cwd=self.path, check=check, input=input, timeout=timeout)

    def write(self, files: Files) -> None:
        """None deletes a file; a text that starts with #! is executable."""
        for name, text in files.items():
            path = self.path / name
            if text is None:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            data = text.encode() if isinstance(text, str) else text
            path.write_bytes(data)
            path.chmod(0o755 if data.startswith(b"#!") else 0o644)

    def commit(self, files: Files | None = None, message: str = "next") -> str:
        """Commit these changes (or, with none, nothing but a message); the commit's full name."""
        self.write(files or {})
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD").out.strip()

    def push_words(self, *words: str, ref: str = "main", to: str = "shipit") -> list[str]:
        return ["git", "push", *words, to, ref]

    def push(
        self, *words: str, ref: str = "main", to: str = "shipit", check: bool = False, timeout: float = 300
    ) -> Result:
        """`git push WORDS shipit REF`. The result has the exit code and exactly what the pusher saw."""
        self.client._trusting()
        argv = self.push_words(*words, ref=ref, to=to)
        return run(argv, env=self.client.environment, cwd=self.path, check=check, timeout=timeout)

    def start_push(self, *words: str, ref: str = "main", to: str = "shipit") -> Background:
        """A push that is under way, to interrupt, to race or to watch."""
        self.client._trusting()
        argv = self.push_words(*words, ref=ref, to=to)
        return Background(argv, env=self.client.environment, cwd=self.path)


__all__ = ["Answer", "Client", "Load", "Repo", "Report", "fetch"]
