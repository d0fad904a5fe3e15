"""The verbs about processes: which release's processes run, and which start at boot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from receiver.errors import HostFault
from receiver.root.verbs.base import Answer
from receiver.root.verbs.slugs import Slugs
from receiver.wire import Request


class Processes(Slugs):
    """Start, keep, stop."""

    def do_start(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        if number := self._damaged_unseen(release):
            raise HostFault(
                f"The files of v{number}, which {release.name} runs, are not those that were built.",
                holds="Nothing was started or stopped.",
                hint=f"Push the commit again, or build the live one anew: shipit deploy {release.app}",
            )
        live = self._ledger(release.app).current()
        if live and live.warm and not release.took_over:
            # So at most two releases of an app are in memory.
            self.engines.cool(release.app, {live.runs_as, release.number})
        self.engines.start(release)
        return {}

    def do_boot_with(self, request: Request, fds: Sequence[int]) -> Answer:
        suspended = self._ledger(request.app).state().suspended
        self.engines.boot_with(request.app, self._known(request) if request.release else None, suspended)
        return {}

    def do_stop(self, request: Request, fds: Sequence[int]) -> Answer:
        self.engines.stop(request.app, self._release(request).runs_as, wait=request.wait)
        return {}

    def do_keep_warm(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        previous = self._ledger(request.app).release(release.previous) if release.warm and release.previous else None
        return {"kept": previous is not None and previous.is_known and self.engines.keep_warm(previous, release.warm)}

    def do_warm(self, request: Request, fds: Sequence[int]) -> Answer:
        return {"releases": sorted(self.engines.warm(request.app))}

    def do_cool(self, request: Request, fds: Sequence[int]) -> Answer:
        live = self._ledger(request.app).current()
        self.engines.cool(request.app, {live.runs_as} if live else ())
        return {}

    def do_restart(self, request: Request, fds: Sequence[int]) -> Answer:
        release = self._known(request)
        if request.process:
            release.process(request.process)
        self.engines.restart(release, request.process or None)
        return {}

    def do_processes(self, request: Request, fds: Sequence[int]) -> Answer:
        running = [asdict(status) for status in self.engines.processes(request.app)]
        defined, under_way = self.engines.defined(request.app), self.engines.under_way(request.app)
        return {"processes": running, "defined": sorted(defined), "under_way": sorted(under_way)}
