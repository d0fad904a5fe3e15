"""Handing a release to the worker: open it, tell the worker, follow it to its end. For every command but a push."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from receiver.errors import Busy, Cancelled, HostFault, Rejected
from receiver.host.client import Agent
from receiver.host.connect import connect_worker
from receiver.host.follow import follow
from receiver.host.ledger import Ledger
from receiver.host.queue import queued
from receiver.model import Release, Source, Status
from receiver.names import ConfigKey, ProcessType
from receiver.paths import Layout


def inherited(release: Release) -> dict[str, Any]:
    """What a release that is not built takes over from the one whose slug it shares."""
    kept = (
        "slug", "environment", "environment_key", "commit", "branch", "subject", "author", "runtime",
        "release_command", "processes", "formation", "build_config", "env", "digest",
    )  # fmt: skip
    return {name: getattr(release, name) for name in kept}


def scaled(formation: Sequence[tuple[ProcessType, int]], wish: Mapping[ProcessType, int]) -> Any:
    """A formation with the wished counts in place of its own; types it does not have are left out."""
    return tuple((kind, wish.get(kind, count)) for kind, count in formation)


class Submission:
    """The app is ours (queue lock held) until the block ends: open one release and see it through.

    `worker` is a descriptor connected to a worker already (host/early.py), or -1.
    """

    def __init__(self, layout: Layout, ledger: Ledger, by: str, worker: int = -1) -> None:
        self.layout, self.ledger, self.by = layout, ledger, by
        # The worker and the agent start while we still decide what to ask for.
        self._worker = connect_worker(layout) if worker < 0 else socket.socket(fileno=worker)

    def __enter__(self) -> Submission:
        self._turn = queued(self.ledger, self.by, push=False, say=tell)
        self._turn.__enter__()
        state = self.ledger.state()
        if state.locked:
            self.__exit__(None, None, None)
            raise Busy(f"{state.app} is locked: {state.locked}", hint=f"Unlock it: shipit apps:unlock {state.app}")
        return self

    def __exit__(self, *error: Any) -> None:
        self._worker.close()
        self._turn.__exit__(*error)

    def current(self) -> Release:
        """The live release; raises Rejected before the first."""
        release = self.ledger.current()
        if release is None:
            raise Rejected(
                f"{self.ledger.app} has no release yet.", hint=f"Push one: git push HOST:{self.ledger.app} main"
            )
        return release

    def submit(self, source: Source, **values: Any) -> int:
        """Open the release and follow it to its end; returns the exit code of its verdict."""
        return self.see_through(self.ledger.open_release(source, self.by, **values))

    def submit_config(
        self, agent: Agent, change: Mapping[ConfigKey, str], unset: Sequence[ConfigKey], **values: Any
    ) -> int:
        """As `submit`, for a change of config vars. The values go to the agent and nowhere else; closes `agent`."""
        release = self.ledger.open_release(Source.CONFIG, self.by, **values)
        try:
            with agent:
                agent.snapshot_config(release.app, release.number, release.config_base, change, unset)
        except BaseException:
            self.ledger.finish(release, Status.FAILED, "The config vars were not written.")
            raise
        return self.see_through(release)

    def see_through(self, release: Release) -> int:
        """Tell the worker and relay the log until the verdict."""
        try:
            self._worker.sendall(f"deploy {release.app} {release.number}\n".encode())
            answer = self._worker.recv(100)
        except OSError as error:
            raise HostFault("The worker went away before it began.", hint="sudo shipit doctor") from error
        if not answer:
            self.ledger.finish(release, Status.FAILED, "The worker did not start.")
            raise HostFault("The worker did not start.", hint="sudo shipit doctor")
        sys.stdout.flush()
        return exit_code(follow(self.ledger, release.number, sys.stdout.fileno(), worker=self._worker))


def exit_code(release: Release) -> int:
    """The verdict of a finished release as a program's exit code."""
    return {Status.LIVE: 0, Status.CANCELLED: Cancelled.exit_code}.get(release.status, 1)


def tell(line: str) -> None:
    """A line for whoever waits, at once."""
    sys.stderr.write(f"-----> {line}\n")
    sys.stderr.flush()
