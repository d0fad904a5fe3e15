"""A running nginx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiver.proxy import nginx
from receiver.proxy.vhost import vhost

from .applied import create
from .site import Site, local


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A running nginx without apps; what apply renders listens on 127.0.0.1 only."""
    monkeypatch.setattr(nginx, "vhost", lambda *a, **k: local(vhost(*a, **k)))
    with Site() as made:
        made.start_nginx()
        create(made)
        yield made
