"""Reading what processes print: the journal on a systemd host, files with the embedded manager.

Run as `shipit`, which is in the group systemd-journal; apps' users are not, so no app reads another's lines.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from receiver.host.manager import booted_with_systemd
from receiver.host.run import run
from receiver.model import Release
from receiver.names import AppName, ProcessType
from receiver.paths import Layout


def unit_pattern(app: AppName, process: ProcessType | None, release: int | None, index: int | None = None) -> str:
    """The unit names of an app's processes, as a pattern for journalctl(1) -u."""
    number = f"v{release}" if release else "v*"
    return f"shipit-{app}-{process or '*'}-{number}@{index or '*'}.service"


def last_lines(layout: Layout, release: Release, process: ProcessType, index: int, count: int) -> list[str]:
    """The last lines that one process of one release printed; empty when there are none."""
    if booted_with_systemd():
        unit = unit_pattern(release.app, process, release.number, index)
        argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", str(count), f"_SYSTEMD_UNIT={unit}"]
        return run(argv, check=False).out.splitlines()
    return _tail(layout.log / release.app / release.name / f"{process}.{index}.log", count)


def _tail(path: Path, count: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def journal_argv(
    app: AppName, *, process: ProcessType | None, release: int | None, lines: int, follow: bool, since: str, grep: str
) -> Sequence[str]:
    """The journalctl(1) call behind `shipit logs`; `since` and `grep` are single arguments, never options."""
    argv = ["journalctl", "--quiet", "--no-pager", "-o", "json", "-n", str(lines), "-u", unit_pattern(app, process, release)]
    argv += ["--follow"] if follow else []
    argv += [f"--since={since}"] if since else []
    argv += [f"--grep={grep}"] if grep else []
    return argv
