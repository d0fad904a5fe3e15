"""The engine where no systemd runs (containers): programs.py is what supervisord is told, engine.py tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.engines import systemd

if TYPE_CHECKING:
    from receiver.engines.base import Engine
    from receiver.paths import Layout

NAME = "embedded"


def here() -> bool:
    """It takes the place of systemd, and stays out of its way."""
    return not systemd.here()


def engine(layout: Layout) -> Engine:
    from receiver.engines.embedded.engine import EmbeddedEngine

    return EmbeddedEngine(layout)
