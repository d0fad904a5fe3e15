"""What is left when no worker can be forked, and what a worker makes durable before its release goes live."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from receiver.errors import Failure, HostFault
from receiver.ledger.ledger import Ledger
from receiver.model import WEB, Change, Check, CheckKind, Listen, Origin, ProcessType, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.story import deploy, worker

BLOG = AppName("blog")


def test_a_release_without_a_worker_has_failed_and_leaves_nothing(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = ledger.open_release(Change.CONFIG, "alice")
    asked: list[Any] = []
    agent: Any = SimpleNamespace(take_away=lambda *what: asked.append(what), close=lambda: asked.append("close"))

    def full() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    with pytest.raises(HostFault, match="did not start") as told:
        worker.begin(Layout(tmp_path), ledger, release, agent)
    assert told.value.holds and told.value.hint
    assert asked == [(BLOG, 1), "close"]
    assert ledger.release(1).status is Status.FAILED


def test_a_release_whose_commit_cannot_be_kept_has_failed_and_is_not_left_open(ledger: Ledger, tmp_path: Path) -> None:
    """Here there is no repository at all."""
    release = ledger.open_release(Change.DEPLOY, "alice", builds=True, origin=Origin("git", "a" * 40))
    asked: list[Any] = []
    agent: Any = SimpleNamespace(take_away=lambda *what: asked.append(what), close=lambda: asked.append("close"))
    with pytest.raises(Failure):
        worker.begin(Layout(tmp_path), ledger, release, agent)
    assert ledger.release(1).status is Status.FAILED and ledger.release(1).reason
    assert asked == [(BLOG, 1), "close"] and not ledger.unfinished()


def test_the_name_of_a_release_lasts_before_it_can_go_live_but_its_processes_do_not_wait_for_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = ledger.open_release(Change.CONFIG, "alice")
    order: list[str] = []
    monkeypatch.setattr(Ledger, "keep_name", lambda self, release: order.append("keep_name"))
    monkeypatch.setattr(type(release), "running", lambda self: [(SimpleNamespace(type="web"), 1)])
    say = SimpleNamespace(step=lambda line: None, timed=lambda what: nullcontext())
    agent = SimpleNamespace(start=lambda app, number: order.append("start"))
    host: Any = SimpleNamespace(ledger=ledger, say=say, agent=agent, keeps_stopped=lambda release: False)
    deploy.start(host, release)
    assert order == ["start", "keep_name"]


def test_a_release_that_nginx_does_not_know_is_not_called_live_for_visitors(ledger: Ledger) -> None:
    """nginx refused the app's first vhost, by another site's mistake, after the switch."""
    said: list[str] = []
    say = SimpleNamespace(warn=said.append, line=said.append, foreign=said.append)
    process = ProcessType(WEB, "run", Listen.SOCKET, Check(CheckKind.HTTP))
    release = ledger.open_release(Change.DEPLOY, "alice", processes=(process,), formation=((WEB, 1),))
    ledger.commit(release)
    host: Any = SimpleNamespace(ledger=ledger, paths=ledger.paths, say=say)
    worker.report(host, release, HostFault("nginx refuses its configuration."))
    assert "nobody reaches it: nginx does not know blog" in "\n".join(said) and "doctor --fix" in "\n".join(said)
    assert not any("live all the same" in line for line in said)
    said.clear()
    ledger.paths.vhost.parent.mkdir(parents=True, exist_ok=True)
    ledger.paths.vhost.write_text("server {}")
    worker.report(host, release, HostFault("nginx refuses its configuration."))
    assert "v1 is live all the same." in said
