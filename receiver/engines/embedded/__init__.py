"""The engine for machines without systemd (containers): programs.py makes supervisord's files, engine.py calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.engines import systemd
from receiver.engines.base import Hints
from receiver.errors import as_root

if TYPE_CHECKING:
    from receiver.engines.base import Engine
    from receiver.paths import Layout

NAME = "embedded"


def here() -> bool:
    """True where systemd does not run."""
    return not systemd.here()


def hints() -> Hints:
    return Hints(
        start_proxy=as_root("shipit-supervisord start"),
        start_agent=as_root("shipit-supervisord start"),
        agent_log=as_root("tail -n 50 /var/log/shipit/agent.log"),
        renews_proxy=False,
    )


def make(layout: Layout) -> Engine:
    from receiver.engines.embedded.engine import EmbeddedEngine

    return EmbeddedEngine(layout)
