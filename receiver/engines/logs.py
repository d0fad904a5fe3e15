"""Reading what processes print: the journal on a systemd host, files with the embedded manager.

Run as `shipit`, which is in the group systemd-journal; apps' users are not, so no app reads another's lines.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from receiver.engines.base import booted_with_systemd
from receiver.engines.systemd.units import unit_name, unit_pattern
from receiver.errors import Rejected
from receiver.model import Release
from receiver.names import AppName, TypeName
from receiver.paths import Layout
from receiver.system.run import passthrough, run


def last_lines(layout: Layout, release: Release, process: TypeName, index: int, count: int) -> list[str]:
    """The last lines that one process of one release printed; empty when there are none."""
    if booted_with_systemd():
        unit = unit_name(release.app, process, release.runs_as, index)
        argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", str(count), f"_SYSTEMD_UNIT={unit}"]
        return run(argv, check=False).out.splitlines()
    return _tail(layout.log / release.app / f"v{release.runs_as}" / f"{process}.{index}.log", count)


def _tail(path: Path, count: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


@dataclass(frozen=True)
class Wanted:
    """What `shipit logs` was asked for."""

    app: AppName
    process: TypeName | None
    release: int | None
    lines: int
    follow: bool
    since: str
    grep: str
    quiet: bool


def show(layout: Layout, wanted: Wanted) -> int:
    """Copy the log to standard output, following it until interrupted when asked; returns an exit code."""
    if booted_with_systemd():
        return passthrough(journal_argv(wanted))
    if wanted.since:
        raise Rejected("--since needs systemd's journal; this server runs the embedded manager.")
    name = f"{wanted.process or '*'}.*.log"
    release = f"v{wanted.release}" if wanted.release else "v*"
    files = sorted((layout.log / wanted.app).glob(f"{release}/{name}"))
    if not files:
        return 0
    # tail's headings say which process a line is of, as journalctl's columns do.
    argv = ["tail", "-q" if wanted.quiet or len(files) == 1 else "-v", "-n", str(wanted.lines)]
    argv += ["-F"] if wanted.follow else []
    return passthrough([*argv, "--", *map(str, files)], matching=wanted.grep)


def journal_argv(wanted: Wanted) -> list[str]:
    """The journalctl(1) call behind `shipit logs`; what the user gave are single arguments, never options."""
    unit = unit_pattern(wanted.app, wanted.process, wanted.release)
    form = "cat" if wanted.quiet else "short-iso"
    argv = ["journalctl", "--quiet", "--no-pager", "--no-hostname", "-o", form, "-n", str(wanted.lines), "-u", unit]
    argv += ["--follow"] if wanted.follow else []
    argv += [f"--since={wanted.since}"] if wanted.since else []
    argv += [f"--grep={wanted.grep}"] if wanted.grep else []
    return argv
