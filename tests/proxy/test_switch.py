"""The switch under load: real nginx, real servers, and not one request lost, repeated or answered by the old release.

SHIPIT_SWITCHES=100 makes each test as long as the promise; the default keeps the suite short.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import replace

import pytest
from lab.traffic import MIX, Traffic, Wish
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from receiver.ledger.ledger import Ledger
from receiver.ledger.pool import CLEAN
from receiver.model import WEB
from receiver.paths import POOLS
from receiver.proxy import maintenance, master
from receiver.proxy.drain import open_connections, wait_until_idle
from receiver.proxy.vhost import PREPARED
from receiver.system import disk

from .load import Load
from .site import APP, Site, release

SWITCHES = int(os.environ.get("SHIPIT_SWITCHES", "10"))
SOME_SWITCHES = max(4, SWITCHES // 5)
NODE = pytest.param("node", marks=pytest.mark.skipif(not shutil.which("node"), reason="Node is not installed"))
KINDS = ["gthread", "sync", "uvicorn", "port", NODE]


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


def serve(site: Site, kind: str, web: int = 1) -> None:
    """Release v1 live behind a running nginx."""
    for index in range(1, web + 1):
        site.spawn(1, kind, index=index)
    site.switch(1, web)
    site.write_vhost(release(1, web=web))
    site.start_nginx()


def idle(site: Site, number: int, seconds: float = 30, web: int = 1) -> bool:
    return wait_until_idle(site.sockets(number, web), seconds)


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
@pytest.mark.parametrize("kind", [*KINDS, "closes", "abrupt"])
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


def check_nothing_was_lost_in(load: Load, by: Set[str] = frozenset({"v1", "v2", "v3"})) -> None:
    assert not load.failures, load.failures
    assert by >= set(load.answers) and load.answers[min(by)] >= load.clients


def test_a_request_that_ends_many_switches_later_leads_nobody_back_to_its_release(site: Site) -> None:
    """Its connection was kept once: returned to a pool that is in use again, it would take others to the old release."""
    serve(site, "uvicorn")
    with (
        Load(site.port, "blog.test", clients=2, path="/slow/2") as slow,
        Load(site.port, "blog.test", clients=4) as load,
    ):
        switched = {}
        for number in range(2, 2 + 2 * POOLS):
            site.spawn(number, "uvicorn")
            site.switch(number)
            switched[number] = time.monotonic()
            time.sleep(0.5)
    check_nothing_was_lost(load)
    assert not slow.failures
    for began, answer in [*load.seen, *slow.seen]:
        assert began <= switched.get(int(answer[1:]) + 1, began), f"{answer} answered after it was replaced"


def test_a_release_that_comes_to_rest_loses_nothing_and_leads_to_no_other(site: Site) -> None:
    serve(site, "uvicorn")
    switched = {}
    with (
        Load(site.port, "blog.test", clients=6) as load,
        Load(site.port, "blog.test", clients=2, method="POST") as posts,
    ):
        for number, web in ((2, 1), (3, 2), (4, 1)):
            for index in range(1, web + 1):
                site.spawn(number, "uvicorn", index=index)
            site.switch(number, web)
            switched[number] = time.monotonic()
            time.sleep(CLEAN + 0.1)
            ledger = Ledger(site.layout.app(APP))
            ledger.save(release(number, web=web))
            ledger.rest()
            assert ledger.paths.release(number).pool(0).exists()
            time.sleep(0.3)
    check_nothing_was_lost(load)
    assert not posts.failures
    for began, answer in [*load.seen, *posts.seen]:
        assert began <= switched.get(int(answer[1:]) + 1, began), f"{answer} answered after it was replaced"


def test_connections_are_kept_and_gone_a_moment_after_the_last_request(site: Site) -> None:
    serve(site, "uvicorn")
    path = str(site.sockets(1, 1)[0])
    with Load(site.port, "blog.test", clients=8) as load:
        time.sleep(0.5)
        # Idle in a pool or in use, but there: with one for each request, most looks would meet fewer than clients.
        assert min(open_connections({path}) for _ in range(50)) >= 1
    check_nothing_was_lost(load)
    assert wait_until_idle(site.sockets(1, 1), 2)


def test_a_release_that_is_replaced_is_idle_at_once_though_its_connections_were_kept(site: Site) -> None:
    serve(site, "uvicorn")
    with Load(site.port, "blog.test", clients=8):
        for number in (2, 3, 4):
            site.spawn(number, "uvicorn")
            site.switch(number)
            began = time.monotonic()
            assert idle(site, number - 1)
            assert time.monotonic() - began < 1.5


def test_without_the_wait_requests_are_lost(site: Site) -> None:
    """The check that the tests above can fail: the same load, the old release killed at the switch."""
    serve(site, "abrupt")
    with Load(site.port, "blog.test", clients=8, path="/slow/0.2") as load:
        # On a busy machine the first kill may find no request under way.
        for number in range(2, 12):
            site.spawn(number, "abrupt")
            site.switch(number)
            site.terminate(number - 1, how=signal.SIGKILL)
            if load.failures["502"]:
                break
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
            site.switch(number, 3)
            switched = time.monotonic()
            assert idle(site, number - 1, web=3)
            for index in range(1, 4):
                site.terminate(number - 1, index=index)
            assert not [a for began, a in load.seen if began > switched and a != f"v{number}"]
    check_nothing_was_lost(load)


@pytest.mark.parametrize(("keep", "method"), [(True, "GET"), (False, "POST")])
def test_a_scale_loses_nothing_and_leaves_nginx_alone(site: Site, keep: bool, method: str) -> None:
    serve(site, "uvicorn")
    master = site.nginx_pid()
    with Load(site.port, "blog.test", clients=8, keep=keep, method=method) as load:
        for number, (before, web) in enumerate([(1, PREPARED), (PREPARED, 2), (2, 3), (3, 1)], start=2):
            for index in range(1, web + 1):
                site.spawn(number, "uvicorn", index=index)
            site.switch(number, web)
            assert site.vhost(release(number, web=web)) == site.vhost(release(1))
            assert idle(site, number - 1, web=before)
            for index in range(1, before + 1):
                site.terminate(number - 1, index=index)
    check_nothing_was_lost(load)
    assert site.nginx_pid() == master
    if method == "POST":
        executed = Counter(site.notes.read_text().split())
        assert set(executed) == load.sent and max(executed.values()) == 1


def test_each_process_of_a_scaled_release_is_asked(site: Site) -> None:
    serve(site, "uvicorn")
    for web in range(1, PREPARED + 1):
        for index in range(1, web + 1):
            site.spawn(web + 1, "sync", index=index)
        site.switch(web + 1, web)
        with Load(site.port, "blog.test", clients=16, keep=False, path="/slow/1") as load:
            time.sleep(0.7)
            busy = [open_connections({str(path)}) for path in site.sockets(web + 1, web)]
        # Each of nginx's workers goes round by itself, so not exactly as many.
        assert all(busy), busy
        check_nothing_was_lost_in(load, {f"v{web + 1}"})


def test_every_kind_of_traffic_comes_through_switches_and_scales(site: Site) -> None:
    """GETs kept and not, slow ones, uploads at once and bit by bit, websockets, HTTP/2 before nginx's own HTTP/1.1."""
    serve(site, "uvicorn")
    wish = Wish("127.0.0.1", "blog.test", site.port, site.h2_port, connections=16, slow=1.5, megabytes=3)
    with Traffic(wish) as traffic:
        web = 1
        for number in range(2, 2 + SOME_SWITCHES):
            before, web = web, number % PREPARED + 1
            for index in range(1, web + 1):
                site.spawn(number, "uvicorn", index=index)
            site.switch(number, web)
            # Slow ones and uploads end; the websockets would not, and are told to by SIGTERM.
            idle(site, number - 1, seconds=3, web=before)
            for index in range(1, before + 1):
                site.terminate(number - 1, index=index)
    assert not traffic.lost, traffic.counts
    assert set(traffic.counts) == {*MIX, "http/2"} and all(count.sent for count in traffic.counts.values())
    # No connection ended under a client's hands but websockets, each once a release. (HTTP/2's GOAWAY is nginx's, after
    # 1000 requests.)
    again = {kind: count.again for kind, count in traffic.counts.items() if count.again}
    assert again.keys() <= {"websocket", "http/2"} and again.get("websocket", 0) <= SOME_SWITCHES * 2


def test_a_change_from_processes_to_pages_and_back_loses_no_request(site: Site) -> None:
    """nginx looks at the live release first and then opens its file or socket; the switch may fall between."""
    serve(site, "closes")
    put_pages(site, 2)
    with Load(site.port, "blog.test", clients=8) as load:
        for turn in range(30 * SWITCHES):
            disk.replace_symlink(site.layout.app(APP).current, f"v{1 + turn % 2}")
            time.sleep(0.01)
    assert not load.failures, load.failures
    assert min(load.answers["v1"], load.answers["v2"]) > SWITCHES


def put_pages(site: Site, number: int) -> None:
    """A release that nginx serves by itself, as a commit leaves it."""
    paths = site.layout.app(APP).release(number)
    paths.slug.mkdir(parents=True)
    paths.dir.mkdir(parents=True)
    paths.sockets_link.symlink_to(paths.run_dir)
    (paths.slug / "index.html").write_text(f"v{number}")
    paths.public.symlink_to(paths.slug)


def test_maintenance_begins_and_ends_without_a_reload_whatever_goes_live_meanwhile(site: Site) -> None:
    serve(site, "closes")
    ledger = Ledger(site.layout.app(APP))
    ledger.save(release(1))
    workers = master.children(site.nginx_pid())
    assert ask(site) == ("200", "v1")
    maintenance.enable(ledger, "Back <b>soon</b>")
    status, page = ask(site)
    assert status == "503" and "Back &lt;b&gt;soon&lt;/b&gt;" in page and "Retry-After: 60" in page
    assert ask(site, "POST /x")[0] == "503"
    site.spawn(2, "closes")
    site.switch(2)
    ledger.save(release(2))
    time.sleep(CLEAN)
    ledger.rest()
    assert ask(site)[0] == "503"
    assert maintenance.disable(ledger) and not maintenance.disable(ledger)
    assert ask(site) == ("200", "v2")
    assert ledger.paths.release(2).one.exists() and ask(site) == ("200", "v2")
    maintenance.enable(ledger)
    assert ask(site)[0] == "503"
    put_pages(site, 3)
    ledger.save(replace(release(3), processes=(), formation=(), static="."))
    disk.replace_symlink(site.layout.app(APP).current, "v3")
    assert ask(site)[0] == "503"
    maintenance.disable(ledger)
    assert ask(site)[1].endswith("v3")
    assert master.children(site.nginx_pid()) == workers


def ask(site: Site, what: str = "GET /", host: str = "blog.test", more: str = "") -> tuple[str, str]:
    """The status of an answer, and its body; of any other than 200 all of it."""
    length = "" if what.startswith("GET") else "Content-Length: 0\r\n"
    with socket.create_connection(("127.0.0.1", site.port)) as pipe:
        pipe.sendall(f"{what} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{more}\r\n".encode())
        answer = b"".join(iter(lambda: pipe.recv(65536), b"")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    status = head.split()[1]
    return status, body if status == "200" else answer
