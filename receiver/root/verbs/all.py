"""What each verb of the agent does. Root's work: every path, name and id is derived here from typed fields.

A slug and what an app wrote are never opened; the ledger's records are decoded strictly (model.py) before use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from receiver.errors import Failure
from receiver.root import reconcile
from receiver.root.verbs.apps import Apps
from receiver.root.verbs.base import Answer
from receiver.root.verbs.builds import Builds
from receiver.root.verbs.commands import Commands
from receiver.root.verbs.config import Config
from receiver.root.verbs.processes import Processes
from receiver.root.verbs.site import Site
from receiver.wire import Request


class Verbs(Apps, Config, Builds, Commands, Processes, Site):
    """One verb a method, each with a request that has been decoded; returns what goes into `ok`, or raises Failure."""

    def do(self, request: Request, fds: Sequence[int]) -> Answer:
        """Do what is asked; `fds` are as many as wire.FDS says."""
        work: Callable[[Request, Sequence[int]], Answer] = getattr(self, f"do_{request.verb.value}")
        return work(request, fds)

    def ahead(self) -> None:
        """After an answer: do of the next request what its sender would have to wait for."""
        then, self._then = self._then, None
        # What is wrong is told by that request.
        with suppress(Failure, OSError):
            if then:
                then()

    def do_ping(self, request: Request, fds: Sequence[int]) -> Answer:
        return {}

    def do_adopt(self, request: Request, fds: Sequence[int]) -> Answer:
        self.engines.adopt(request.app, request.release, request.sender)
        return {}

    def do_reconcile(self, request: Request, fds: Sequence[int]) -> Answer:
        return {"done": reconcile.reconcile(self.layout, self.engines, request.app)}
