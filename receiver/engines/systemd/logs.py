"""The output of processes, from the journal.

Runs as `shipit`, which is in the group systemd-journal; apps' users are not, so no app reads another's lines.
"""

from __future__ import annotations

import select
import sys

from receiver.engines.base import Wanted
from receiver.engines.systemd.units import unit_name, unit_pattern
from receiver.model import Release
from receiver.names import TypeName
from receiver.system.run import passthrough, run

# journalctl(1)'s message about a pattern that matches no unit in the journal.
NOTHING = "Failed to add filter for units"


class Journal:
    """See `Logs` for the promises."""

    def last_lines(self, release: Release, process: TypeName, index: int, count: int) -> list[str]:
        unit = unit_name(release.app, process, release.runs_as, index)
        argv = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "-n", str(count), f"_SYSTEMD_UNIT={unit}"]
        return run(argv, check=False).out.splitlines()

    def show(self, wanted: Wanted) -> int:
        while True:
            errors: list[str] = []
            code = _newest(wanted, errors) if wanted.since and not wanted.follow else _copied(wanted, errors)
            if not any(NOTHING in line for line in errors):
                sys.stderr.writelines(f"{line}\n" for line in errors)
                return code
            if not wanted.follow:
                sys.stderr.write(f"-----> {wanted.process or wanted.app} has printed nothing yet.\n")
                return 0
            # The journal has nothing of these processes yet: try again until it has, or until the reader is gone.
            waits = select.poll()
            waits.register(1, 0)
            if waits.poll(1000):
                return 0


def _copied(wanted: Wanted, errors: list[str]) -> int:
    return passthrough(journal_argv(wanted), errors=errors)


def _newest(wanted: Wanted, errors: list[str]) -> int:
    """The newest lines since a time, in order: journalctl(1) itself would print the oldest of all."""
    found = run([*journal_argv(wanted), "--reverse"], check=False)
    errors += found.err.splitlines()
    lines = found.out.removesuffix("\n").split("\n") if found.out else []
    sys.stdout.writelines(f"{line}\n" for line in reversed(lines))
    return found.code


def journal_argv(wanted: Wanted) -> list[str]:
    """The journalctl(1) call behind `shipit logs`; a user's words are single arguments, never options."""
    unit = unit_pattern(wanted.app, wanted.process, wanted.release)
    form = "cat" if wanted.quiet else "short-iso"
    argv = ["journalctl", "--quiet", "--no-pager", "--no-hostname", "-o", form, "-u", unit]
    # When following since a time, show all lines since then.
    argv += ["--no-tail"] if wanted.follow and wanted.since else ["-n", str(wanted.lines)]
    argv += ["--follow"] if wanted.follow else []
    argv += [f"--since={wanted.since}"] if wanted.since else []
    argv += [f"--grep={wanted.grep}"] if wanted.grep else []
    return argv
