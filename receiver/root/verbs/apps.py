"""The verbs about an app as a whole: its users and directories, the size of its data, the timer that looks at its
repo."""

from __future__ import annotations

import os
from collections.abc import Sequence

from receiver.engines.base import Job, job_name
from receiver.errors import HostFault, as_root
from receiver.paths import app_user
from receiver.root import accounts
from receiver.root.verbs.base import Answer, Desk
from receiver.system import disk
from receiver.wire import Request

MEASURE_TIMEOUT = 600


class Apps(Desk):
    """An app, from its creation to its end."""

    def do_create_app(self, request: Request, fds: Sequence[int]) -> Answer:
        new = accounts.create(self.layout.app(request.app))
        self.engines.prepare(request.app)
        return {"created": new}

    def do_destroy_app(self, request: Request, fds: Sequence[int]) -> Answer:
        from receiver.proxy import nginx

        self.engines.forget(request.app)
        disk.remove_tree(self.layout.ran / request.app)
        try:
            nginx.remove(self.layout, request.app)
        finally:
            accounts.destroy(self.layout.app(request.app))
        return {}

    def do_look_every(self, request: Request, fds: Sequence[int]) -> Answer:
        self._app(request.app)
        self.engines.look_every(request.app, request.seconds)
        return {}

    def do_measure(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        # Run as the app's own user, without write access: root does not walk through an app's files.
        job = Job(
            name=job_name("measure", request.app, 0, str(os.getpid())), app=request.app, user=app_user(request.app),
            argv=("/usr/bin/du", "-s", "-x", "--block-size=1", "."), cwd=paths.data, writable=(),
            timeout=MEASURE_TIMEOUT,
        )  # fmt: skip
        null, (reader, writer) = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), os.pipe()
        try:
            with self.watch(job.name):
                # Errors about files that vanish meanwhile do not matter: du prints the sum all the same.
                code = self.engines.run_job(job, None, writer, null)
            os.close(writer)
            writer = -1
            told = os.read(reader, 100).split()
        finally:
            for fd in (null, reader, writer):
                if fd >= 0:
                    os.close(fd)
        if not told or not told[0].isdigit():
            raise HostFault(
                f"The data of {request.app} could not be measured (du ended with {code}).",
                holds="Nothing was changed.", hint=as_root(f"du -sh {paths.data}"),
            )  # fmt: skip
        return {"used": int(told[0])}
