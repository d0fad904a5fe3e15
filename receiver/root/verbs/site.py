"""The verbs about what visitors reach: the vhost, and the certificates of its names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from receiver import settings
from receiver.root.verbs.base import Answer, Desk
from receiver.wire import Request


class Site(Desk):
    """The vhost and its certificates. Most connections need neither, so each verb imports its own modules."""

    def do_proxy(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.proxy import nginx

        return {"reloaded": nginx.apply(self.layout, settings.load(self.layout.settings), request.app)}

    def do_certify(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        done = certificates.certify(self.layout, self.engines, request.app, fds[0], now=request.now)
        return {"names": [asdict(one) for one in done]}

    def do_add_certificate(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        return {"names": list(certificates.add(self.layout, request.app, fds[0]).names)}

    def do_remove_certificate(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        return {"removed": certificates.remove(self.layout, request.app)}

    def do_prove_by_dns(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.root import certificates

        self._app(request.app)
        certificates.prove_by_dns(self.layout, request.app, request.plugin, request.seconds, fds[0])
        return {}
