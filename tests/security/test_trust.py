"""What root, the worker and nginx believe of what an app can write: nothing, or only what the kernel says (issue 12, E33).

Small tests, because each is one question to one function; test_root_files.py has those that need a machine.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.engines import base
from receiver.ledger.ledger import Ledger
from receiver.model import Listen
from receiver.names import AppName
from receiver.paths import Layout
from receiver.proxy import probe, sockets
from receiver.proxy.drain import open_connections, wait_until_idle
from receiver.story.worker import locked
from receiver.system import disk

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's process is needed; only root can start one")


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory with a short path, because a socket's has 107 bytes (unix(7))."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("trap", ["endless", "long", "fifo", "large", "words", "somebody else's", "negative"])
def test_a_port_file_that_is_a_trap_is_a_sentence_within_a_moment(here: Path, trap: str) -> None:
    port = here / "web.1.port"
    if trap == "endless":
        port.symlink_to("/dev/zero")
    elif trap == "long":
        port.symlink_to("8" * 4000)
    elif trap == "fifo":
        os.mkfifo(port)
    else:
        port.write_text({"large": "1" * 10_000_000, "words": "5 thousand", "negative": "-5"}.get(trap, "8000"))
    uid = os.getuid() + 1 if trap == "somebody else's" else os.getuid()
    answers: list[str] = []
    place = probe.Place(here, "web.1", Listen.PORT, uid)
    asking = threading.Thread(target=lambda: answers.append(place.accepts(1.0)), daemon=True)
    began = time.monotonic()
    asking.start()
    asking.join(5)
    assert answers and answers[0], f"still asking after {time.monotonic() - began:.0f} s"
    assert len(answers[0]) < 200


@as_root
def test_a_socket_that_leads_to_a_neighbour_after_it_was_looked_at_is_not_the_apps(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is swapped between the look and the connection: who listens is asked of the connection itself."""
    here.chmod(0o777)
    neighbour, own = here / "neighbour.sock", here / "web.1.sock"
    serve = (
        "import socket,sys,time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "while True:\n    c, _ = s.accept(); c.recv(9999) and c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n'); c.close()\n"
    )
    words = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", serve, str(neighbour)]
    with subprocess.Popen(words) as theirs:
        try:
            base.wait_until_it_listens(neighbour)
            own.symlink_to(neighbour)
            monkeypatch.setattr(probe.Place, "_foreign_socket", lambda self: "")
            place = probe.Place(here, "web.1", Listen.SOCKET, os.getuid())
            for answer in (place.http("localhost", "/", 0, "", 2.0), place.accepts(2.0)):
                assert answer == "web.1.sock is not a socket of the app's own"
            assert not probe.Place(here, "web.1", Listen.SOCKET, 65534).http("localhost", "/", 0, "", 2.0)
        finally:
            theirs.kill()


def test_a_line_break_in_a_name_adds_no_connection_to_another_apps_socket(here: Path) -> None:
    path = str(here / "web.1.sock")
    forged = f"\n0000000000000000: 00000003 00000000 00000000 0001 03 4242 {path}"[:107]
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        abstract.bind(b"\0x" + forged.encode())
        plain.bind(f"{here}/x\ny {path[-8:]}")
        assert path in sockets.read(Path("/proc/net/unix")), "the kernel's table is not forged, so this shows nothing"
        assert open_connections({path}) == 0
        began = time.monotonic()
        assert wait_until_idle([Path(path)], 5)
        assert time.monotonic() - began < 1


def test_connections_are_counted_accepted_or_waiting(here: Path) -> None:
    path = here / "web.1.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        assert open_connections({str(path)}) == 0, "who listens is no connection"
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.connect(str(path))
        accepted, _ = listener.accept()
        assert open_connections({str(path)}) == 3 == sockets.read(Path("/proc/net/unix")).count(str(path))
        for end in (accepted, *clients):
            end.close()


def test_a_socket_whose_queue_is_full_holds_no_restart(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "LISTENS_WITHIN", 1.0)
    path = here / "web.1.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(str(path))
        restart = threading.Thread(target=base.wait_until_it_listens, args=(path,), daemon=True)
        restart.start()
        restart.join(5)
        assert not restart.is_alive()
        for client in waiting:
            client.close()


def test_nobody_but_shipit_can_hold_a_lock_of_the_ledger(here: Path) -> None:
    """Whoever can open a file for reading can lock it: an app could keep its own next release out for ever."""
    ledger = Ledger(Layout(here).app(AppName("blog")))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    old = ledger.paths.app_lock
    old.touch(0o640)
    old.chmod(0o640)
    os.close(locked(old))
    with disk.locked(ledger.paths.queue_lock, wait=True) as fd:
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    ledger.change_state(lambda state: state)
    modes = {path.name: path.stat().st_mode & 0o777 for path in ledger.paths.releases.glob("*lock*")}
    assert len(modes) == 3 and set(modes.values()) == {0o600}, modes
