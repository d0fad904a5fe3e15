"""What processes printed, from the journal.

Read as `shipit`, which is in the group systemd-journal; apps' users are not, so no app reads another's lines.
"""

from __future__ import annotations

from receiver.engines.base import Wanted
from receiver.engines.systemd.units import unit_name, unit_pattern
from receiver.model import Release
from receiver.names import TypeName
from receiver.system.run import passthrough, run


class Journal:
    """See `Logs` for the promises."""

    def last_lines(self, release: Release, process: TypeName, index: int, count: int) -> list[str]:
        unit = unit_name(release.app, process, release.runs_as, index)
        argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", str(count), f"_SYSTEMD_UNIT={unit}"]
        return run(argv, check=False).out.splitlines()

    def show(self, wanted: Wanted) -> int:
        return passthrough(journal_argv(wanted))


def journal_argv(wanted: Wanted) -> list[str]:
    """The journalctl(1) call behind `shipit logs`; what the user gave are single arguments, never options."""
    unit = unit_pattern(wanted.app, wanted.process, wanted.release)
    form = "cat" if wanted.quiet else "short-iso"
    argv = ["journalctl", "--quiet", "--no-pager", "--no-hostname", "-o", form, "-n", str(wanted.lines), "-u", unit]
    argv += ["--follow"] if wanted.follow else []
    argv += [f"--since={wanted.since}"] if wanted.since else []
    argv += [f"--grep={wanted.grep}"] if wanted.grep else []
    return argv
