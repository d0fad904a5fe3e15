"""Keeps the Python that shipit and the apps' environments use, when the system moves on to another version.

After an upgrade of Debian, `apt autoremove` would remove the old Python while programs still use it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from receiver.setup.places import Record
from receiver.setup.report import Step
from receiver.system.run import find, run

SYSTEM = Path("/usr/bin/python3")


def hold(record: Record, step: Step) -> Record:
    """Mark the packages of the system's Python as manually installed; returns the record with those it changed."""
    exact = SYSTEM.resolve()
    known = record.held.split()
    if exact.name in known or find("apt-mark") is None:
        return record
    packages = [exact.name, f"{exact.name}-minimal"]
    ours = run(["apt-mark", "showauto", *packages], check=False).out.split()
    if ours:
        run(["apt-mark", "manual", *ours], check=False, timeout=60)
        step.did(f"{exact.name} is kept")
    return replace(record, held=" ".join([*known, exact.name, *(name for name in ours if name != exact.name)]))


def let_go(record: Record) -> None:
    """Undo that."""
    if record.held and find("apt-mark"):
        run(["apt-mark", "auto", *record.held.split()], check=False, timeout=60)
