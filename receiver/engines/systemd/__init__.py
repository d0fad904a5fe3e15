"""The engine of a machine that systemd runs: units.py is what it is told, engine.py tells it, logs.py reads the journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.engines.base import Engine
    from receiver.paths import Layout

NAME = "systemd"


def here() -> bool:
    """Whether systemd is the init system of this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def engine(layout: Layout) -> Engine:
    from receiver.engines.systemd.engine import SystemdEngine

    return SystemdEngine(layout)
