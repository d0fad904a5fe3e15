"""The output of processes, from the files that supervisord writes: /var/log/shipit/APP/vN/web.1.log."""

from __future__ import annotations

import os
import sys

from receiver.engines.base import Wanted
from receiver.errors import Rejected
from receiver.model import Release
from receiver.names import TypeName
from receiver.paths import Layout
from receiver.system.run import passthrough


class LogFiles:
    """See `Logs` for the promises."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def last_lines(self, release: Release, process: TypeName, index: int, count: int) -> list[str]:
        path = self._layout.log / release.app / f"v{release.runs_as}" / f"{process}.{index}.log"
        try:
            with path.open("rb") as file:
                begin = max(0, os.fstat(file.fileno()).st_size - 65536)
                file.seek(begin)
                # The first of them was cut, unless it is the log's first.
                return file.read().decode(errors="replace").splitlines()[1 if begin else 0 :][-count:]
        except FileNotFoundError:
            return []

    def show(self, wanted: Wanted) -> int:
        if wanted.since:
            raise Rejected("--since needs systemd's journal; this server runs without systemd.")
        argv = tail_argv(self._layout, wanted)
        if not argv:
            sys.stderr.write(f"-----> {wanted.process or wanted.app} has printed nothing yet.\n")
            return 0
        return passthrough(argv, matching=wanted.grep)


def tail_argv(layout: Layout, wanted: Wanted) -> list[str]:
    """The tail(1) call behind `shipit logs`; empty if there is no log."""
    name = f"{wanted.process or '*'}.*.log"
    release = f"v{wanted.release}" if wanted.release else "v*"
    files = sorted((layout.log / wanted.app).glob(f"{release}/{name}"))
    if not files:
        return []
    # tail's headings say which process a line is from, as journalctl's columns do.
    argv = ["tail", "-q" if wanted.quiet or len(files) == 1 else "-v", "-n", str(wanted.lines)]
    argv += ["-F"] if wanted.follow else []
    return [*argv, "--", *map(str, files)]
