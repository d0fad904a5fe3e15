"""What each verb of the agent does, as root: every path, name and id is derived here from typed fields.

Slugs and files of an app are never opened; the ledger's records are decoded strictly (model.py) before use.
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
    """One method for each verb. It takes a decoded request, and returns what goes into `ok` or raises Failure."""

    def do(self, request: Request, fds: Sequence[int]) -> Answer:
        """Do the request; wire.FDS says how many `fds` it has."""
        work: Callable[[Request, Sequence[int]], Answer] = getattr(self, f"do_{request.verb.value}")
        return work(request, fds)

    def ahead(self) -> None:
        """After an answer: prepare the likely next request, so that its sender need not wait for that."""
        then, self._then = self._then, None
        # If this fails, that request will report it.
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
