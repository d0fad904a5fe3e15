"""What is compared, with one face: shipit, and the bundled bash hook."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.lab import snapshot, tree

from .machine import Client, Outcome, Server
from .sample import GUNICORN, Sample

DOMAIN = "bench.test"
HOOK = Path(__file__).parent / "bash-hook"


class Receiver(Protocol):
    """A machine that takes pushes. Whatever is timed starts a new ssh connection from outside."""

    name: str
    client: Client
    server: Server

    def prepare(self, app: str) -> None:
        """All that has to be done by hand before a first push. Not timed."""

    def push(self, sample: Sample, app: str) -> Outcome: ...

    def configure(self, app: str, greeting: str) -> Outcome:
        """Set the config var GREETING."""

    def roll_back(self, sample: Sample, app: str) -> Outcome:
        """Back to what was live before the last push."""

    def mend(self, app: str) -> None:
        """What an operator does when the app does not answer. Not timed."""

    def forget(self, app: str) -> None:
        """Take the app away. Not timed."""

    def forget_downloads(self) -> None:
        """Empty every cache of packages. Not timed."""

    def rest(self) -> None:
        """Until nothing is up that an earlier login has started. Not timed."""

    def disk(self, app: str) -> int:
        """Bytes on disk that the app and its caches hold."""


def host_name(app: str) -> str:
    return f"{app}.{DOMAIN}"


def used(server: Server, *paths: str) -> int:
    """Bytes on disk below these paths, hard links counted once."""
    said = server.sh(f"du -scB1 {' '.join(paths)} 2>/dev/null | tail -n 1", check=False).out
    return int(said.split()[0])


def logged_out(server: Server, user: str) -> None:
    """Until logind has put away all of the user's, which it does 10 s after the last session (logind.conf(5))."""
    server.sh(f"while systemctl is-active -q user-$(id -u {user}).slice; do sleep 0.5; done", timeout=60)


@dataclass
class BashHook:
    """The rival on a machine of its own."""

    server: Server
    client: Client
    name: str = "bash hook"
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def install(cls, client: Client) -> BashHook:
        server = Server.boot(tree.base_tree(tree.SUITE), "hook", own_disk=True)
        server.put(HOOK, "/root/bash-hook")
        server.write("/root/key.pub", client.key.with_suffix(".pub").read_text())
        server.run("/root/bash-hook/prepare", "/root/key.pub", timeout=300)
        server.keep_archives()
        return cls(server, client)

    @property
    def account(self) -> str:
        return f"deploy@{self.server.ip}"

    def prepare(self, app: str) -> None:
        port = self.ports.setdefault(app, 8001 + len(self.ports))
        self.server.run("/root/bash-hook/new-app", app, str(port), host_name(app), GUNICORN)

    def push(self, sample: Sample, app: str, what: str = "main") -> Outcome:
        url = f"ssh://{self.account}/srv/{app}/repo.git"
        return self.client.call("git", "push", "-f", url, f"{what}:main", cwd=sample.where)

    def configure(self, app: str, greeting: str) -> Outcome:
        script = f"echo GREETING={greeting} > /srv/{app}/env && sudo systemctl restart {app}"
        return self.client.ssh(self.account, script)

    def roll_back(self, sample: Sample, app: str) -> Outcome:
        return self.push(sample, app, "main~1")

    def mend(self, app: str) -> None:
        self.server.sh(f"systemctl reset-failed {app}; systemctl restart {app}", check=False)

    def forget(self, app: str) -> None:
        site, unit = f"/etc/nginx/sites-enabled/{app}", f"/etc/systemd/system/{app}.service"
        self.server.sh(
            f"systemctl disable -q --now {app}; rm -rf /srv/{app} {site} {unit};"
            "systemctl daemon-reload; systemctl reload nginx"
        )

    def forget_downloads(self) -> None:
        self.server.sh("rm -rf /home/deploy/.cache")

    def rest(self) -> None:
        logged_out(self.server, "deploy")

    def disk(self, app: str) -> int:
        return used(self.server, f"/srv/{app}", "/home/deploy/.cache")


@dataclass
class Shipit:
    """The product, installed by its own install.sh from this work tree."""

    server: Server
    client: Client
    name: str = "shipit"

    @classmethod
    def install(cls, client: Client, name: str = "shipit") -> Shipit:
        server = Server.boot(tree.base_tree(tree.SUITE), name, own_disk=True)
        server.put(snapshot.clone(), "/root/shipit")
        server.write("/root/key.pub", client.key.with_suffix(".pub").read_text())
        words = ("./install.sh", "--key", "/root/key.pub", "--domain", DOMAIN)
        server.sh(f"cd /root/shipit && {' '.join(words)}", timeout=600)
        server.keep_archives()
        return cls(server, client, name)

    @property
    def account(self) -> str:
        return f"shipit@{self.server.ip}"

    def prepare(self, app: str) -> None:
        """Nothing: the first push makes the app, and what that takes counts."""

    def push(self, sample: Sample, app: str) -> Outcome:
        return self.client.call("git", "push", f"{self.account}:{app}", "main", cwd=sample.where)

    def configure(self, app: str, greeting: str) -> Outcome:
        return self.client.ssh(self.account, f"config:set {app} GREETING={greeting}")

    def roll_back(self, sample: Sample, app: str) -> Outcome:
        return self.client.ssh(self.account, f"rollback {app}")

    def mend(self, app: str) -> None:
        self.server.run("shipit", "doctor", "--fix", check=False)

    def forget(self, app: str) -> None:
        self.client.ssh(self.account, f"apps:destroy --force {app}").must()

    def forget_downloads(self) -> None:
        self.server.sh("rm -rf /var/lib/shipit/apps/*/cache/* /var/cache/shipit/*")

    def rest(self) -> None:
        self.server.run("systemctl", "stop", "shipit-gateway.service", "shipit-agent.service")
        logged_out(self.server, "shipit")

    def disk(self, app: str) -> int:
        return used(self.server, f"/var/lib/shipit/apps/{app}")
