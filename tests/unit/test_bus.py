"""Calls to systemd's private socket, against a peer that answers as told; the real one answers in tests/host."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, Message, new_error, new_method_return, new_signal
from jeepney.low_level import Parser

from receiver.engines.systemd import bus
from receiver.engines.systemd.units import warm_name, warm_number, warm_timer, worker_scope
from receiver.errors import HostFault
from receiver.names import AppName

# What systemd 252 says to the handshake.
GRANTED = b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\nAGREE_UNIX_FD\r\n"
Script = Callable[["Systemd"], None]


class Systemd:
    """The other end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.parser, self.serial = connection, Parser(), 100
        connection.settimeout(10)
        said = b""
        while len(said) < len(bus.HANDSHAKE):
            said += connection.recv(len(bus.HANDSHAKE) - len(said))

    def asked(self) -> Message:
        while (message := self.parser.get_next_message()) is None:
            self.parser.add_data(self.connection.recv(4096))
        return message

    def say(self, message: Message) -> None:
        self.serial += 1
        self.connection.sendall(message.serialise(self.serial))

    def removed(self, job: str, result: str) -> None:
        manager = DBusAddress(bus.MANAGER.object_path, interface=bus.MANAGER.interface)
        self.say(new_signal(manager, "JobRemoved", "uoss", (1, job, "x.service", result)))


@pytest.fixture
def peer(tmp_path: Path) -> Callable[..., Path]:
    def start(script: Script, greeting: bytes = GRANTED) -> Path:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "private"))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with server, connection:
                systemd = Systemd(connection)
                connection.sendall(greeting)
                script(systemd)

        threading.Thread(target=answer, daemon=True).start()
        return tmp_path / "private"

    return start


def test_a_start_is_waited_for_until_its_job_has_ended(peer: Callable[..., Path]) -> None:
    def script(systemd: Systemd) -> None:
        one, two = systemd.asked(), systemd.asked()
        systemd.removed("/job/other", "failed")
        # Ended before it was even said which job it is.
        systemd.removed("/job/1", "done")
        systemd.say(new_method_return(two, "o", ("/job/2",)))
        systemd.say(new_method_return(one, "o", ("/job/1",)))
        systemd.removed("/job/2", "timeout")

    with bus.connect(peer(script)) as systemd:
        assert systemd.start_units(["a", "b"], until_done=["a", "b"]) == {"b": "timeout"}


@pytest.mark.parametrize("cut", [1, 20, None])
def test_a_signal_that_comes_with_the_handshake_is_heard(peer: Callable[..., Path], cut: int | None) -> None:
    """systemd tells everybody of what else it does, from the first moment on."""
    manager = DBusAddress(bus.MANAGER.object_path, interface=bus.MANAGER.interface)
    signal = new_signal(manager, "JobRemoved", "uoss", (9, "/job/9", "y\r\n.service", "failed")).serialise(100)

    def script(systemd: Systemd) -> None:
        call = systemd.asked()
        systemd.connection.sendall(signal[cut:] if cut else b"")
        systemd.say(new_method_return(call, "o", ("/job/1",)))
        systemd.removed("/job/1", "done")

    with bus.connect(peer(script, GRANTED + signal[:cut])) as systemd:
        assert systemd.start_units(["a"], until_done=["a"]) == {}


def test_a_stop_is_over_when_its_unit_has_ended_or_was_not_there(peer: Callable[..., Path]) -> None:
    heard: list[str] = []

    def script(systemd: Systemd) -> None:
        one, two = systemd.asked(), systemd.asked()
        heard.extend(message.header.fields[HeaderFields.member] for message in (one, two))
        systemd.say(new_method_return(one, "o", ("/job/1",)))
        systemd.say(new_error(two, "org.freedesktop.systemd1.NoSuchUnit", "s", ("Unit b not loaded.",)))
        time.sleep(0.2)
        heard.append("ended")
        systemd.removed("/job/1", "done")

    with bus.connect(peer(script)) as systemd:
        systemd.stop_units(["a", "b"])
        assert heard == ["StopUnit", "StopUnit", "ended"]


def test_a_timer_is_made_together_with_the_service_that_it_starts(peer: Callable[..., Path]) -> None:
    heard: list[Any] = []

    def script(systemd: Systemd) -> None:
        call = systemd.asked()
        heard.append(call.body)
        systemd.say(new_method_return(call, "o", ("/job/1",)))

    with bus.connect(peer(script)) as systemd:
        systemd.start_transient(warm_timer(AppName("my-blog"), 7, 600))
    ((name, mode, properties, beside),) = heard
    assert (name, mode) == ("shipit-warm-my_blog-v7.timer", "fail")
    assert dict(properties)["TimersMonotonic"] == ("a(st)", [("OnActiveSec", 600_000_000)])
    ((service, known),) = beside
    assert service == "shipit-warm-my_blog-v7.service"
    ((program, argv, _),) = dict(known)["ExecStart"][1]
    assert argv == [program, "stop", "--no-block", "shipit-my_blog-*-v7@[0-9]*.service"]
    assert warm_number(name) == 7


def test_only_active_units_are_listed_and_what_systemd_refuses_is_told(peer: Callable[..., Path]) -> None:
    def script(systemd: Systemd) -> None:
        call = systemd.asked()
        assert call.body == (["active"], ["shipit-warm-blog-v*.timer"])
        unit = ("shipit-warm-blog-v7.timer", "", "loaded", "active", "waiting", "", "/x", 0, "", "/")
        systemd.say(new_method_return(call, "a(ssssssouso)", ([unit],)))
        systemd.say(new_error(systemd.asked(), "org.freedesktop.DBus.Error.AccessDenied", "s", ("No.",)))

    with bus.connect(peer(script)) as systemd:
        assert systemd.active(warm_name(AppName("blog"), None)) == ["shipit-warm-blog-v7.timer"]
        with pytest.raises(bus.Refused, match="No"):
            systemd.active("*")


def test_a_start_that_nobody_waits_for_has_no_end(peer: Callable[..., Path]) -> None:
    with bus.connect(peer(lambda s: s.say(new_method_return(s.asked(), "o", ("/job/1",))))) as systemd:
        assert systemd.start_units(["a"], until_done=[]) == {}


def test_why_a_unit_cannot_be_started_is_systemds_own_word(peer: Callable[..., Path]) -> None:
    def script(systemd: Systemd) -> None:
        systemd.say(new_error(systemd.asked(), "org.freedesktop.systemd1.NoSuchUnit", "s", ("Unit a not found.",)))
        systemd.say(new_error(systemd.asked(), "org.freedesktop.systemd1.Masked"))

    with bus.connect(peer(script)) as systemd:
        failed = systemd.start_units(["a", "b"], until_done=["a", "b"])
    assert failed == {"a": "Unit a not found.", "b": "org.freedesktop.systemd1.Masked"}


def test_what_makes_systemd_read_its_directories_is_not_waited_for(peer: Callable[..., Path]) -> None:
    heard: list[object] = []
    done = threading.Event()

    def script(systemd: Systemd) -> None:
        heard.append(systemd.asked().body)
        done.set()

    with bus.connect(peer(script)) as systemd:
        systemd.reread()
    assert done.wait(10)
    assert heard == [(bus.NOBODY,)]


def test_a_scope_is_asked_for_with_its_process(peer: Callable[..., Path]) -> None:
    heard: list[Message] = []

    def script(systemd: Systemd) -> None:
        heard.append(systemd.asked())
        systemd.say(new_method_return(heard[0], "o", ("/job/1",)))

    with bus.connect(peer(script)) as systemd:
        systemd.start_transient(worker_scope(AppName("blog"), 8, 4711))
    name, mode, properties, _ = heard[0].body
    assert (name, mode) == ("shipit-worker-blog-v8.scope", "fail")
    assert dict(properties)["PIDs"] == ("au", [4711])
    assert dict(properties)["TimeoutStopUSec"] == ("t", 60_000_000)


def test_a_refused_scope_is_told_apart_from_a_silent_systemd(peer: Callable[..., Path]) -> None:
    path = peer(lambda s: s.say(new_error(s.asked(), "org.freedesktop.systemd1.UnitExists", "s", ("It exists.",))))
    with bus.connect(path) as systemd, pytest.raises(bus.Refused, match="It exists"):
        systemd.start_transient(worker_scope(AppName("blog"), 8, 1))


@pytest.mark.parametrize("greeting", [b"REJECTED\r\nERROR\r\nERROR\r\n", b"DATA\r\n", b""])
def test_a_connection_that_is_refused_or_closed_is_a_fault_of_the_host(
    peer: Callable[..., Path], greeting: bytes
) -> None:
    with pytest.raises(HostFault, match="systemd"), bus.connect(peer(lambda _: None, greeting)):
        pytest.fail("connected")


def test_a_systemd_that_goes_away_is_a_fault_of_the_host(
    peer: Callable[..., Path],
) -> None:
    with pytest.raises(HostFault, match="does not answer"), bus.connect(peer(lambda s: None)) as systemd:
        systemd.start_units(["a"], until_done=["a"])


def test_silence_has_an_end(peer: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "SILENCE", 0.2)
    over = threading.Event()
    with (
        pytest.raises(HostFault, match="nothing for"),
        bus.connect(peer(lambda s: bool(over.wait(10)))) as systemd,
    ):
        systemd.start_units(["a"], until_done=["a"])
    over.set()


def test_without_systemd_it_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(HostFault, match="does not answer"), bus.connect(tmp_path / "nobody"):
        pytest.fail("connected")


def test_a_message_of_many_parts_is_put_together(peer: Callable[..., Path]) -> None:
    def script(systemd: Systemd) -> None:
        whole = new_method_return(systemd.asked(), "o", ("/job/1",)).serialise(101)
        for byte in whole:
            systemd.connection.sendall(bytes([byte]))
        systemd.removed("/job/1", "done")

    with bus.connect(peer(script)) as systemd:
        assert systemd.start_units(["a"], until_done=["a"]) == {}
