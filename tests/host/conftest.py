"""Tests here boot servers: all of them are marked `host` by tests/conftest.py, which has the fixtures too."""

from __future__ import annotations

import pytest
from lab.client import Client, Repo

from host.apps import pushed


@pytest.fixture(scope="module")
def blog(laptop: Client) -> Repo:
    """An app with two process types that the tests of this module share; each leaves it serving `blog`."""
    manifest = "processes: {worker: {count: 1, healthcheck: {settle: 1}}}\n"
    procfile = "web: python main.py --at $SOCKET\nworker: echo worker begins; sleep 100000\n"
    return pushed(laptop, "blog", "blog", procfile=procfile, shipit_yml=manifest)
