"""An agent in a directory of its own, with a engine that only remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from receiver.engines.all import Engines
from receiver.engines.base import Job, ProcessStatus, Service
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Check, CheckKind, Listen, ProcessType, Release, Status
from receiver.names import AppName, ConfigKey, TypeName
from receiver.paths import Layout
from receiver.root import agent
from receiver.root.client import Agent

BLOG, WEB = AppName("blog"), TypeName("web")
A, B, C = ConfigKey("A"), ConfigKey("B"), ConfigKey("C")


class FakeEngine:
    """Writes down what it was asked and does none of it; `job` is what running one does."""

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.running: list[ProcessStatus] = []
        self.definitions: set[int] = set()
        self.kept: set[int] = set()
        self.job: Callable[[Job], int] = lambda job: 0
        self.jobs: list[Job] = []
        self.stopped = threading.Event()

    def adopt(self, app: AppName, number: int, pid: int) -> None:
        self.calls.append(("adopt", number, pid))

    def takes(self, release: Release) -> bool:
        return True

    def services(self) -> list[Service]:
        return []

    def ahead(self) -> Iterator[None]:
        return iter(())

    def expect_jobs(self) -> None:
        """Whether it is called depends on who is quicker."""

    def expect_start(self, release: Release) -> None:
        self.calls.append(("expect_start", release.app, release.number))

    def prepare(self, app: AppName) -> None:
        self.calls.append(("prepare", app))

    def forget(self, app: AppName) -> None:
        self.calls.append(("forget", app))

    def start(self, release: Release) -> None:
        self.calls.append(("start", release.number))

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        self.calls.append(("stop", number, wait))

    def keep_warm(self, release: Release, seconds: int) -> bool:
        self.calls.append(("keep_warm", release.number, seconds))
        return True

    def warm(self, app: AppName) -> set[int]:
        return self.kept

    def cool(self, app: AppName, but: Collection[int]) -> None:
        self.calls.append(("cool", sorted(but)))

    def boot_with(self, app: AppName, release: Release | None) -> None:
        self.calls.append(("boot_with", release.number if release else 0))

    def restart(self, release: Release, kind: TypeName | None) -> None:
        self.calls.append(("restart", release.number, kind))

    def processes(self, app: AppName) -> Sequence[ProcessStatus]:
        return self.running

    def defined(self, app: AppName) -> set[int]:
        return self.definitions

    def run_job(self, job: Job, stdin: int | None, stdout: int, stderr: int, *, tty: bool = False) -> int:
        self.jobs.append(job)
        return self.job(job)

    def stop_job(self, name: str) -> None:
        self.calls.append(("stop_job", name))
        self.stopped.set()


class Lab:
    """An app with a ledger below a directory, and an agent that serves one connection."""

    def __init__(self, root: Path) -> None:
        self.layout, self.engine = Layout(root), FakeEngine()
        self.engines = Engines((self.engine,))
        self.paths = self.layout.app(BLOG)
        for path in (self.paths.releases, self.paths.config, self.paths.slugs, self.paths.data, self.layout.run):
            path.mkdir(parents=True)
        self.ledger = Ledger(self.paths)
        self.ledger.create()
        ours, theirs = socket.socketpair()
        self.raw = ours
        self.agent = Agent(ours, self.layout.agent_socket)
        self.thread = threading.Thread(target=self.serve, args=(theirs,))
        self.thread.start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            agent.serve(self.layout, connection, self.engines, iter(()))

    def release(self, **values: Any) -> Release:
        web = ProcessType(WEB, "run", Listen.SOCKET, Check(CheckKind.COMMAND, command="check"))
        known = {"processes": (web,), "formation": ((WEB, 2),), "release_command": "migrate", **values}
        made = self.ledger.open_release(Change.DEPLOY, "alice", **known)
        made = self.ledger.save(
            replace(made, slug=made.slug or made.number, environment=made.environment or made.number)
        )
        slug = self.paths.release(made.slug).slug
        slug.mkdir(exist_ok=True)
        (slug / "file").write_text("x")
        return made

    def live(self, **values: Any) -> Release:
        made = self.release(**values)
        made = self.ledger.finish(made, Status.LIVE)
        self.ledger.commit(made)
        return made

    def close(self) -> None:
        self.agent.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


def answer_to(lab: Lab, line: bytes) -> dict[str, Any]:
    lab.raw.sendall(line)
    answer: dict[str, Any] = json.loads(lab.raw.makefile("rb").readline())
    return answer
