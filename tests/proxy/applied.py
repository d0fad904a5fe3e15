"""Apps behind a real nginx whose configuration receiver.proxy.nginx writes."""

from __future__ import annotations

import http.client
from dataclasses import replace

from receiver.ledger.ledger import Ledger
from receiver.model import AppState
from receiver.names import AppName
from receiver.proxy import nginx
from receiver.serving import Serving

from .site import APP, Site, release


def create(site: Site, app: AppName = APP, **values: object) -> Ledger:
    """The ledger of an app; `values` change its state."""
    ledger = Ledger(site.layout.app(app))
    ledger.paths.releases.mkdir(parents=True, exist_ok=True)
    ledger.save_state(replace(AppState(app=app, created=0.0), **values))  # type: ignore[arg-type]
    return ledger


def live(
    site: Site,
    number: int = 1,
    web: int = 1,
    kind: str = "uvicorn",
    app: AppName = APP,
    serving: Serving | None = None,
) -> None:
    """A release that runs and is committed."""
    ledger = Ledger(site.layout.app(app))
    for index in range(1, web + 1):
        site.spawn(number, kind, app=app, index=index)
    ledger.commit(ledger.save(replace(release(number, web=web, app=app), serving=serving or Serving())))


def apply(site: Site, app: AppName = APP) -> bool:
    return nginx.apply(site.layout, site.settings, app)


def get(
    site: Site,
    host: str = "blog.test",
    path: str = "/",
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request(method, path, body, {"Host": host, **(headers or {})})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
