"""Has a release made: opens it, starts its worker, follows it to its end. For every command except a push."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from receiver.caller import Caller
from receiver.errors import Cancelled, Rejected
from receiver.ledger.follow import follow
from receiver.ledger.ledger import Ledger
from receiver.ledger.queue import queued
from receiver.model import Change, Release, Status
from receiver.names import ConfigKey, TypeName
from receiver.paths import Layout
from receiver.proxy.endpoint import still_holds
from receiver.root.client import Agent
from receiver.story import verdict, worker


def scaled(formation: Sequence[tuple[TypeName, int]], wish: Mapping[TypeName, int]) -> Any:
    """A formation with the given counts; process types that it does not have are left out of it."""
    return tuple((kind, wish.get(kind, count)) for kind, count in formation)


class Submission:
    """Holds the app's queue lock until the block ends: open one release and see it through.

    `agent` may be used until the release is submitted; then it is the worker's.
    """

    def __init__(self, layout: Layout, ledger: Ledger, by: Caller) -> None:
        self.layout, self.ledger, self.by = layout, ledger, by
        # The agent starts up while we still decide what to ask for.
        self.agent = Agent.connect(layout.agent_socket)

    def __enter__(self) -> Submission:
        self._turn = queued(self.ledger, self.by.name, push=False, say=self._wait)
        self._turn.__enter__()
        try:
            self.agent.reopen()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait(self, line: str) -> None:
        # Close it while waiting: each of many waiting commands would keep an agent busy.
        self.agent.close()
        tell(line)

    def __exit__(self, *error: Any) -> None:
        self.agent.close()
        self._turn.__exit__(*error)

    def current(self) -> Release:
        """The live release; raises Rejected before the first."""
        release = self.ledger.current()
        if release is None:
            raise Rejected(
                f"{self.ledger.app} has no release yet.", hint=f"Push one: git push HOST:{self.ledger.app} main"
            )
        return release

    def submit(
        self,
        what: Change,
        base: Release | None = None,
        change: Mapping[ConfigKey, str] | None = None,
        unset: Sequence[ConfigKey] = (),
        **values: Any,
    ) -> int:
        """Open the release, start its worker and relay its log to the end; returns the exit code of its verdict.
        `base`: the release whose carried fields it takes over (records.py); `values` are its own. The config vars of a
        release that is not built are written here, with `change`, and go to the agent and nowhere else.
        """
        release = self.ledger.open_release(what, self.by.name, base, key=self.by.fingerprint, **values)
        if not release.builds:
            try:
                self.agent.snapshot_config(release.app, release.number, release.config_base, change or {}, unset)
            except BaseException:
                verdict.failed(self.ledger, release, "The config vars were not written.")
                raise
        ended = worker.begin(self.layout, self.ledger, release, self.agent)
        holds = partial(still_holds, self.ledger)
        return exit_code(follow(self.ledger, release.number, sys.stdout.fileno(), worker=ended, holds=holds))


def exit_code(release: Release) -> int:
    """The verdict of a finished release as a program's exit code."""
    return {Status.LIVE: 0, Status.CANCELLED: Cancelled.exit_code}.get(release.status, 1)


def tell(line: str) -> None:
    """Print a line for the waiting user, unbuffered."""
    sys.stderr.write(f"-----> {line}\n")
    sys.stderr.flush()
