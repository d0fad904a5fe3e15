"""The engine for machines with systemd: units.py makes the text of units, engine.py starts them, logs.py reads the
journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from receiver.engines.base import Hints
from receiver.errors import as_root

if TYPE_CHECKING:
    from receiver.engines.base import Engine
    from receiver.paths import Layout

NAME = "systemd"


def here() -> bool:
    """Whether systemd is the init system of this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def hints() -> Hints:
    return Hints(
        start_proxy=as_root("systemctl start nginx"),
        start_agent=as_root("systemctl restart shipit-agent.socket"),
        agent_log="journalctl -t shipit-agent _UID=0 -n 50",
        renews_proxy=True,
    )


def make(layout: Layout) -> Engine:
    from receiver.engines.systemd.engine import SystemdEngine

    return SystemdEngine(layout)
