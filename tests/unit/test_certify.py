"""Who asks an authority for a certificate while another asks for the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_vhost import BLOG, STATE

from receiver.ledger.ledger import Ledger
from receiver.model import Https
from receiver.names import Domain
from receiver.paths import Layout
from receiver.proxy.certificates import Certificates, Installed, Origin, Try
from receiver.records import encode
from receiver.root import certificates
from receiver.root.certificates import Outcome, certify
from receiver.system import disk

NAME = Domain("www.example.org")


class Authority:
    """Stands for the engine, whose job asks it."""

    def __init__(self) -> None:
        self.asked = 0

    def run_job(self, *_: object) -> int:
        self.asked += 1
        return 1


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set once an asker has seen what there is and is about to wait for its turn."""
    found = threading.Event()
    monkeypatch.setattr(certificates.nginx, "apply", lambda *_: found.set())
    layout = Layout(tmp_path)
    ledger = Ledger(layout.app(BLOG))
    ledger.paths.releases.mkdir(parents=True)
    ledger.save_state(replace(STATE, domains=(NAME,), without_default=True, https=Https.ON))
    certificates.prepare(ledger.paths)
    layout.roots.mkdir(parents=True)
    yield found


def second(layout: Layout, authority: Any, waiting: threading.Event, became: Any, *, now: bool) -> list[Outcome]:
    """Ask while somebody else is asking, of whom this `became`."""
    with ThreadPoolExecutor(1) as beside, Path(os.devnull).open("w") as nowhere:
        with disk.locked(layout.roots / "acme.lock", wait=True):
            asks = beside.submit(certify, layout, authority, BLOG, nowhere.fileno(), now=now)
            assert waiting.wait(60)
            store = Certificates(layout.app(BLOG))
            record = store.record(NAME) if isinstance(became, Installed) else store.try_record(NAME)
            record.write_bytes(encode(became))
        return asks.result(60)


def installed(begin: float) -> Installed:
    return Installed(Origin.ACME, (NAME,), begin, begin + 90 * 86400, "CN=Test", f"{int(begin):064x}")


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_what_another_has_got_meanwhile_is_not_asked_for_again(
    old: bool, now: bool, tmp_path: Path, waiting: threading.Event
) -> None:
    layout, authority = Layout(tmp_path), Authority()
    if old:
        Certificates(layout.app(BLOG)).record(NAME).write_bytes(encode(installed(time.time() - 80 * 86400)))
    done = second(layout, authority, waiting, installed(time.time()), now=now)
    assert done == [Outcome(NAME, True)] and authority.asked == 0


def test_what_another_was_refused_meanwhile_waits_as_if_it_had_been_asked_here(
    tmp_path: Path, waiting: threading.Event
) -> None:
    layout, authority = Layout(tmp_path), Authority()
    refused = Try(1, time.time(), time.time() + 900, "it leads elsewhere")
    assert second(layout, authority, waiting, refused, now=False) == [Outcome(NAME, False, "it leads elsewhere")]
    assert authority.asked == 0
    # Who says "now" is not put off.
    assert second(layout, authority, waiting, refused, now=True)[0].done is False
    assert authority.asked == 1
