from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.errors import Unhealthy
from receiver.model import WEB, Change, Check, CheckKind, Listen, ProcessType, Release, Status
from receiver.names import AppName
from receiver.paths import AppPaths, Layout
from receiver.proxy import health, probe
from receiver.proxy.health import wait_until_healthy

BLOG = AppName("blog")
Answer = Callable[[socket.socket], None]


@pytest.fixture
def paths() -> Iterator[AppPaths]:
    # Short, because a socket's path has 107 bytes (unix(7)).
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    found = Layout(root).app(BLOG)
    found.release(8).run_dir.mkdir(parents=True)
    yield found
    shutil.rmtree(root)


def says(text: str) -> Answer:
    def answer(pipe: socket.socket) -> None:
        pipe.recv(65536)
        pipe.sendall(text.encode())

    return answer


OK = says("HTTP/1.1 200 OK\r\n\r\nhello")


def serve(where: Path | None, answer: Answer, after: float = 0.0) -> socket.socket:
    """A server that gives one answer to each connection, on a unix socket or (None) on a port."""
    listener = socket.socket(socket.AF_UNIX if where else socket.AF_INET)

    def run() -> None:
        time.sleep(after)
        listener.bind(str(where) if where else ("127.0.0.1", 0))
        listener.listen(64)
        bound.set()
        while True:
            try:
                pipe, _ = listener.accept()
            except OSError:
                return
            with pipe:
                try:
                    answer(pipe)
                except OSError:
                    continue

    bound = threading.Event()
    threading.Thread(target=run, daemon=True).start()
    if not after:
        bound.wait()
    return listener


def wait(
    paths: AppPaths,
    asked: Check,
    *,
    listen: Listen = Listen.SOCKET,
    crashed: Callable[[], str | None] = lambda: None,
    command: Callable[[], int] = lambda: 0,
    ready: Callable[[], int] = lambda: 1,
    uid: int | None = None,
    index: int = 1,
) -> float:
    """Run the check; the seconds it took."""
    process = ProcessType(WEB, "run", listen, asked)
    release = Release(
        app=BLOG, number=8, change=Change.DEPLOY, status=Status.STARTING, by="alice", created=0.0,
        processes=(process,), formation=((WEB, 1),),
    )  # fmt: skip
    began = time.monotonic()
    wait_until_healthy(
        release, process, index, paths, crashed=crashed, command=command, ready=ready, say=lambda line: None,
        uid=os.getuid() if uid is None else uid,
    )  # fmt: skip
    return time.monotonic() - began


def refused(paths: AppPaths, asked: Check, *, timeout: float = 0.2, **values: object) -> str:
    """What the user is told; a manifest's timeout is in whole seconds, which no test has the time for."""
    asked = replace(asked, timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(Unhealthy) as failure:
        wait(paths, asked, **values)  # type: ignore[arg-type]
    return failure.value.message


def web(paths: AppPaths, index: int = 1) -> Path:
    return paths.release(8).socket(WEB, index)


def http(path: str = "/", status: int = 0, content: str = "") -> Check:
    return Check(CheckKind.HTTP, path=path, status=status, content=content, timeout=10)


def test_a_start_of_0_3_s_is_not_rounded_up(paths: AppPaths) -> None:
    serve(web(paths), OK, after=0.3)
    assert 0.28 < wait(paths, http()) < 0.9


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "404 Not Found", "401 No"])
def test_any_answer_below_500_will_do_when_none_is_wanted(paths: AppPaths, status: str) -> None:
    serve(web(paths), says(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n"))
    wait(paths, http())


def test_the_refusal_names_process_answer_path_and_time(paths: AppPaths) -> None:
    serve(web(paths), says("HTTP/1.1 500 Broken\r\n\r\n"))
    expected = "web.1 did not answer 200 on /up within 0.2 s (last answer: 500)."
    assert refused(paths, http("/up", 200)) == expected


def test_another_answer_than_the_wanted_one_is_refused(paths: AppPaths) -> None:
    serve(web(paths), says("HTTP/1.1 302 Found\r\n\r\n"))
    assert "(last answer: 302)" in refused(paths, http(status=200))


def test_the_wanted_content_must_be_there(paths: AppPaths) -> None:
    serve(web(paths), OK)
    wait(paths, http(content="hell"))
    assert "200 without the wanted content" in refused(paths, http(content="heaven"))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda pipe: None, "closed without an answer"),
        (says("SSH-2.0-OpenSSH\r\n\r\n"), "not HTTP"),
        (says("HTTP/1.1 99 No\r\n\r\n"), "not HTTP"),
        (lambda pipe: time.sleep(1), "none in time"),
    ],
)
def test_what_is_no_answer_is_told_as_such(paths: AppPaths, answer: Answer, told: str) -> None:
    serve(web(paths), answer)
    assert f"(last answer: {told})" in refused(paths, http())


def test_nothing_that_listens_is_told_as_such(paths: AppPaths) -> None:
    assert "nothing listens yet" in refused(paths, http())


def test_an_endless_answer_is_cut_short(paths: AppPaths) -> None:
    def endless(pipe: socket.socket) -> None:
        pipe.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            pipe.sendall(b"x" * 65536)

    serve(web(paths), endless)
    assert wait(paths, http()) < 2


def test_an_endless_head_is_no_answer(paths: AppPaths) -> None:
    def endless(pipe: socket.socket) -> None:
        while True:
            pipe.sendall(b"x: y\r\n" * 1000)

    serve(web(paths), endless)
    assert "not HTTP" in refused(paths, http())


def test_a_stream_of_events_is_healthy_although_it_never_ends(paths: AppPaths) -> None:
    def events(pipe: socket.socket) -> None:
        pipe.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        time.sleep(2)

    serve(web(paths), events)
    assert wait(paths, http()) < 1.5


def test_a_crash_is_not_waited_out(paths: AppPaths) -> None:
    began = time.monotonic()
    message = refused(paths, http(), timeout=60, crashed=lambda: "it ended")
    assert message == "web.1 did not become healthy: it ended (last answer: nothing listens yet)."
    assert time.monotonic() - began < 1


def test_a_link_to_another_apps_socket_is_not_healthy(paths: AppPaths) -> None:
    elsewhere = paths.layout.root / "other.sock"
    serve(elsewhere, OK)
    web(paths).symlink_to(elsewhere)
    assert "not a socket of the app's own" in refused(paths, http())


def test_another_users_socket_is_not_healthy(paths: AppPaths) -> None:
    serve(web(paths), OK)
    assert "not a socket of the app's own" in refused(paths, http(), uid=os.getuid() + 1)


@pytest.mark.parametrize("kind", [CheckKind.HTTP, CheckKind.TCP])
def test_a_port_that_another_user_took_is_not_healthy(
    paths: AppPaths, kind: CheckKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = serve(None, OK).getsockname()[1]
    serve(web(paths), OK)
    place = paths.release(8).run_dir / "web.1.port"
    assert "nothing listens yet" in refused(paths, Check(kind), listen=Listen.PORT)
    place.write_text(f"{port}\n")
    wait(paths, Check(kind), listen=Listen.PORT)
    assert probe.listeners(port) == {os.getuid()}
    (place.parent / "web.1.sock").chmod(0o666)
    owned = probe.Place(place.parent, "web.1", Listen.PORT, os.getuid())
    monkeypatch.setattr(probe, "listeners", lambda port: {os.getuid() + 1})
    assert owned.accepts(1) == f"port {port} belongs to another user"


def test_a_port_that_nobody_has_is_not_healthy_though_its_front_answers(paths: AppPaths) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        (paths.release(8).run_dir / "web.1.port").write_text(str(port))
        serve(web(paths), OK)
        assert f"nothing listens on port {port}" in refused(paths, http(), listen=Listen.PORT)


def test_tcp6_is_looked_at_too(tmp_path: Path) -> None:
    head = "  sl  local_address  rem_address st tx_queue rx_queue tr tm->when retrnsmt uid\n"
    row = "   0: 00000000000000000000000000000000:1F90 0:0 {} 0:0 0:0 0 1001 0 1\n"
    (tmp_path / "tcp6").write_text(head + row.format("0A") + row.format("01").replace("1001", "1002"))
    assert probe.listeners(8080, tmp_path) == {1001}
    assert probe.listeners(8081, tmp_path) == set()


def test_tcp_asks_only_for_a_connection(paths: AppPaths) -> None:
    serve(web(paths), lambda pipe: None)
    wait(paths, Check(CheckKind.TCP))
    web(paths).unlink()
    assert refused(paths, Check(CheckKind.TCP)).startswith("web.1 did not accept a connection within 0.2 s")


def test_a_command_is_repeated_until_it_succeeds(paths: AppPaths) -> None:
    codes = iter([1, 7, 0])
    wait(paths, Check(CheckKind.COMMAND), command=lambda: next(codes))
    told = refused(paths, Check(CheckKind.COMMAND), command=lambda: 3)
    assert told == "web.1 did not pass its command healthcheck within 0.2 s (last answer: exit code 3)."


def test_notify_waits_until_the_engine_says_so(paths: AppPaths) -> None:
    began = time.monotonic()
    wait(paths, Check(CheckKind.NOTIFY), ready=lambda: int(time.monotonic() - began > 0.3))
    assert time.monotonic() - began < 2
    assert "still starting" in refused(paths, Check(CheckKind.NOTIFY), ready=lambda: 0)


def test_uptime_wants_one_process_without_a_break(paths: AppPaths) -> None:
    took = wait(paths, Check(CheckKind.UPTIME, settle=1), listen=Listen.NONE, ready=lambda: 77)
    assert 1 <= took < 2
    began = time.monotonic()
    reborn = wait(
        paths,
        Check(CheckKind.UPTIME, settle=1),
        listen=Listen.NONE,
        ready=lambda: 77 if time.monotonic() - began < 0.8 else 78,
    )
    assert reborn >= 1.8


def test_all_processes_of_a_formation_are_checked_at_once(paths: AppPaths) -> None:
    for index in range(1, 6):
        serve(web(paths, index), OK, after=0.4)
    began = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda index: wait(paths, http(), index=index), range(1, 6)))
    assert time.monotonic() - began < 1.5


def test_a_port_of_its_own_choice_is_named_while_the_check_still_waits(
    paths: AppPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.3)
    said: list[str] = []
    process = ProcessType(WEB, "run", Listen.SOCKET, replace(Check(CheckKind.HTTP), timeout=1))
    release = Release(
        app=BLOG, number=8, change=Change.DEPLOY, status=Status.STARTING, by="alice", created=0.0,
        processes=(process,), formation=((WEB, 1),),
    )  # fmt: skip
    opened: list[socket.socket] = []
    late = threading.Timer(0.1, lambda: opened.append(serve(None, OK)))
    late.start()
    with pytest.raises(Unhealthy):
        health.wait_until_healthy(
            release, process, 1, paths, crashed=lambda: None, command=lambda: 0, ready=lambda: 0, say=said.append,
            uid=os.getuid(),
        )  # fmt: skip
    port = opened[0].getsockname()[1]
    assert str(port) in said[0] and "requests come to $SOCKET" in said[0], said
