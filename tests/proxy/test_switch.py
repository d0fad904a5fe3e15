"""The switch under load: real nginx, real servers, and not one request lost, repeated or answered by the old release.

SHIPIT_SWITCHES=100 makes each test as long as the promise; the default keeps the suite short.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from receiver.host.drain import open_connections, wait_until_idle
from receiver.model import WEB

from .load import Load
from .site import APP, Site, release

SWITCHES = int(os.environ.get("SHIPIT_SWITCHES", "10"))


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


def serve(site: Site, kind: str, web: int = 1) -> None:
    """Release v1 live behind a running nginx."""
    for index in range(1, web + 1):
        site.spawn(1, kind, index=index)
    site.switch(1)
    site.write_vhost(release(1, web=web))
    site.start_nginx()


def idle(site: Site, number: int, seconds: float = 30, web: int = 1) -> bool:
    paths = site.layout.app(APP).release(number)
    return wait_until_idle([paths.socket(WEB, index) for index in range(1, web + 1)], seconds)


def put_live(site: Site, number: int, kind: str, how: int = signal.SIGTERM) -> float:
    """What a deploy does: start, switch, wait until the old one is idle, end it. When the switch was done."""
    site.spawn(number, kind)
    site.switch(number)
    switched = time.monotonic()
    assert idle(site, number - 1)
    site.terminate(number - 1, how=how)
    return switched


def check_nothing_was_lost(load: Load) -> None:
    assert not load.failures, load.failures
    assert load.requests > SWITCHES


@pytest.mark.parametrize(("keep", "method"), [(True, "GET"), (False, "POST")])
@pytest.mark.parametrize("kind", ["gthread", "sync", "uvicorn", "abrupt", "port"])
def test_no_request_is_lost_repeated_or_stale(site: Site, kind: str, keep: bool, method: str) -> None:
    serve(site, kind)
    switched = {}
    with Load(site.port, "blog.test", clients=8, keep=keep, method=method) as load:
        for number in range(2, SWITCHES + 2):
            # The abrupt ones: SIGKILL, so that nothing of their own can help.
            switched[number] = put_live(site, number, kind, signal.SIGKILL if kind == "abrupt" else signal.SIGTERM)
    check_nothing_was_lost(load)
    for began, answer in load.seen:
        assert began <= switched.get(int(answer[1:]) + 1, began), f"{answer} answered after it was replaced"
    if method == "POST":
        executed = Counter(site.notes.read_text().split())
        assert set(executed) == load.sent and max(executed.values()) == 1


@pytest.mark.parametrize("kind", ["sync", "uvicorn", "abrupt", "port"])
def test_slow_requests_in_flight_are_finished(site: Site, kind: str) -> None:
    serve(site, kind)
    with Load(site.port, "blog.test", clients=3, keep=False, method="GET", path="/slow/1.5") as load:
        for number in (2, 3):
            time.sleep(0.3)
            put_live(site, number, kind)
    check_nothing_was_lost_in(load)


def check_nothing_was_lost_in(load: Load) -> None:
    assert not load.failures, load.failures
    assert {"v1", "v2", "v3"} >= set(load.answers) and load.answers["v1"] >= 3


def test_without_the_wait_requests_are_lost(site: Site) -> None:
    """The check that the tests above can fail: the same load, the old release killed at the switch."""
    serve(site, "abrupt")
    with Load(site.port, "blog.test", clients=8, path="/slow/0.2") as load:
        for number in (2, 3, 4):
            site.spawn(number, "abrupt")
            site.switch(number)
            site.terminate(number - 1, how=signal.SIGKILL)
    assert load.failures["502"]


def websocket(site: Site) -> ClientConnection:
    return connect("ws://blog.test/", sock=socket.create_connection(("127.0.0.1", site.port)))


def test_a_websocket_stays_with_its_release_until_it_is_closed(site: Site) -> None:
    serve(site, "uvicorn")
    with websocket(site) as old:
        old.send("a")
        assert old.recv() == "v1:a"
        site.spawn(2, "uvicorn")
        site.switch(2)
        old.send("b")
        assert old.recv() == "v1:b"
        with websocket(site) as new:
            new.send("c")
            assert new.recv() == "v2:c"
        assert not idle(site, 1, seconds=0.5)
    assert idle(site, 1, seconds=5)


def test_a_websocket_that_never_ends_is_told_to_by_sigterm(site: Site) -> None:
    serve(site, "uvicorn")
    with websocket(site) as old:
        site.spawn(2, "uvicorn")
        site.switch(2)
        assert not idle(site, 1, seconds=0.3)
        site.terminate(1)
        with pytest.raises(ConnectionClosed):
            old.recv(timeout=10)
        # RFC 6455, 7.4.1, and its registry: 1012, the service restarts.
        assert old.close_code == 1012


def test_a_request_in_the_backlog_counts_as_open(site: Site) -> None:
    serve(site, "sync")
    # Four workers: the fifth request and on wait in the listener's queue, accepted by nobody.
    path = str(site.layout.app(APP).release(1).socket(WEB, 1))
    with Load(site.port, "blog.test", clients=8, keep=False, path="/slow/1") as load:
        time.sleep(0.5)
        assert open_connections({path}) == 8
    check_nothing_was_lost_in(load)


def test_many_processes_go_live_with_one_rename(site: Site) -> None:
    serve(site, "uvicorn", web=3)
    with Load(site.port, "blog.test", clients=8) as load:
        for number in range(2, 5):
            for index in range(1, 4):
                site.spawn(number, "uvicorn", index=index)
            site.switch(number)
            switched = time.monotonic()
            assert idle(site, number - 1, web=3)
            for index in range(1, 4):
                site.terminate(number - 1, index=index)
            assert not [a for began, a in load.seen if began > switched and a != f"v{number}"]
    check_nothing_was_lost(load)


def test_fewer_processes_lose_nothing_before_nginx_knows(site: Site) -> None:
    """nginx still names web.2 and web.3 until it is reloaded: a failed connect(2) goes to the next, POST or not."""
    serve(site, "uvicorn", web=3)
    with Load(site.port, "blog.test", clients=8, method="POST") as load:
        site.spawn(2, "uvicorn")
        site.switch(2)
        assert idle(site, 1, web=3)
        for index in range(1, 4):
            site.terminate(1, index=index)
        threading.Event().wait(0.5)
    check_nothing_was_lost(load)
    executed = Counter(site.notes.read_text().split())
    assert set(executed) == load.sent and max(executed.values()) == 1
