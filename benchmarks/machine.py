"""The machines that are measured, and a client's way to them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.base import run
from tests.lab.host import Host
from tests.lab.net import hierarchies


class Server(Host):
    """A lab host on an ext4 of its own, as Debian makes and mounts one, with its journal: the lab's machines skip fsync,
    which would flatter whoever writes durably, and below them may be an ext4 without a journal, which for a minute after
    many files were deleted takes five times as long to make new ones (recently_deleted in Linux's fs/ext4/ialloc.c)."""

    @property
    def group(self) -> str:
        """The name of its control group, below which all of its processes are."""
        return self._slot.name

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing on it runs meanwhile, as if it were not there (`cgroup.freeze`, Linux's cgroup-v2.rst)."""
        [unified] = [mount for kind, mount in hierarchies() if kind == "unified"]
        switch = unified / self.group / "cgroup.freeze"
        switch.write_text("1")
        try:
            yield
        finally:
            switch.write_text("0")

    def _mount_disk(self) -> None:
        run(["mount", "-o", "loop", self.directory / "image", self.directory / "disk"])


@dataclass(frozen=True)
class Outcome:
    """A finished command: when it was started and ended (s, monotonic clock), and all that it said."""

    began: float
    ended: float
    code: int
    said: str

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def must(self) -> Outcome:
        if self.code != 0:
            raise RuntimeError(f"exit code {self.code}:\n{self.said}")
        return self


@dataclass(frozen=True)
class Client:
    """Somebody with a key, outside the machine. Every command is a new ssh connection."""

    key: Path
    home: Path

    def ssh_words(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ControlMaster": "no",
            "ControlPath": "none",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.home / "known_hosts"),
            "LogLevel": "ERROR",
        }
        return ["ssh", "-F", "none", "-i", str(self.key), *(f"-o{name}={value}" for name, value in options.items())]

    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "GIT_SSH_COMMAND": " ".join(self.ssh_words()),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "bench",
            "GIT_AUTHOR_EMAIL": "bench@example.org",
            "GIT_COMMITTER_NAME": "bench",
            "GIT_COMMITTER_EMAIL": "bench@example.org",
        }

    def call(self, *words: str, cwd: Path | None = None, timeout: float = 300) -> Outcome:
        """Run a command to its end and time it."""
        began = time.monotonic()
        process = subprocess.run(
            words,
            cwd=cwd,
            env=dict(self.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        return Outcome(began, time.monotonic(), process.returncode, process.stdout.decode(errors="replace"))

    def ssh(self, account: str, command: str) -> Outcome:
        return self.call(*self.ssh_words(), account, command)
