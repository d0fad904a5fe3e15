"""Calls to systemd's manager without starting a program (org.freedesktop.systemd1(5)).

The connection is to /run/systemd/private, systemd's own socket, which systemctl(1) uses as root: there is no D-Bus
daemon in between, and all signals of the manager arrive without a subscription. jeepney encodes and decodes the
messages.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call
from jeepney.low_level import Message, Parser

from receiver.engines.systemd.units import Transient
from receiver.errors import HostFault

PRIVATE = Path("/run/systemd/private")
MANAGER = DBusAddress(
    "/org/freedesktop/systemd1", bus_name="org.freedesktop.systemd1", interface="org.freedesktop.systemd1.Manager"
)
# Sent at once, as systemd's own programs do: a client that waits for each answer gets no answer after BEGIN.
HANDSHAKE = b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
ANSWERS = 3
NOBODY = "shipit-nobody.service"  # a unit that never exists
SILENCE = 120.0  # seconds; a start ends after TimeoutStartSec=, 90 of them


PATIENCE = 10.0  # seconds; systemd is away for less when it re-executes itself (daemon-reexec, an upgrade)

T = TypeVar("T")


class Gone(HostFault):
    """The connection broke, or there is none: systemd may be re-executing itself."""


class Refused(Exception):
    """systemd's answer to a call was an error; the message is its own."""


class Bus:
    """One connection. Every method raises HostFault if systemd does not answer."""

    def __init__(self, connection: socket.socket, heard: bytes = b"") -> None:
        """`heard`: bytes of its first messages that were read already."""
        self._connection = connection
        self._parser = Parser()
        self._parser.add_data(heard)
        self._serial = 0

    def start_units(self, names: Sequence[str], *, until_done: Collection[str]) -> dict[str, str]:
        """Start these units, and wait until the starts of those in `until_done` have ended. Returns the reason for each
        that was not started (a job's result, systemd.unit(5), or an error)."""
        return self._jobs("StartUnit", names, until_done)

    def stop_units(self, names: Sequence[str]) -> None:
        """Stop these units and wait until each has ended. A unit that does not exist counts as ended."""
        self._jobs("StopUnit", names, names)

    def _jobs(self, method: str, names: Sequence[str], until_done: Collection[str]) -> dict[str, str]:
        failed: dict[str, str] = {}
        asked = {self._send(method, "ss", (name, "replace")): name for name in names}
        jobs: dict[str, str] = {}
        ended: dict[str, str] = {}
        while asked or any(name in until_done and job not in ended for job, name in jobs.items()):
            message = self._receive()
            fields = message.header.fields
            name = asked.pop(fields.get(HeaderFields.reply_serial, 0), None)
            if name and message.header.message_type is MessageType.error:
                failed[name] = _said(message)
            elif name:
                jobs[message.body[0]] = name
            elif fields.get(HeaderFields.member) == "JobRemoved":
                _, job, _, result = message.body
                ended[job] = result
        return failed | {jobs[job]: result for job, result in ended.items() if job in jobs and result != "done"}

    def reread(self) -> None:
        """Have systemd read its unit directories now, instead of when the next unit is loaded while a user waits. After
        every change there it reads them whole, which takes 5 ms, with 200 apps 10. Does not wait for it."""
        self._send("LoadUnit", "s", (NOBODY,))

    def start_transient(self, unit: Transient) -> None:
        """Have systemd make a unit without a file and start it: a scope, into which a running process is moved, or a
        timer with its service; raises Refused."""
        known, service = (
            [(name, (kind, value)) for name, kind, value in properties]
            for properties in (unit.properties, unit.service)
        )
        beside = [(f"{unit.name.rpartition('.')[0]}.service", service)] if service else []
        self._ask("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit.name, "fail", known, beside))

    def active(self, pattern: str, states: Collection[str] = ("active",)) -> list[str]:
        """The names of the units that match a glob and are in one of these states."""
        found = self._ask("ListUnitsByPatterns", "asas", ([*states], [pattern])).body[0]
        return [str(name) for name, *_ in found]

    def _ask(self, method: str, signature: str, body: tuple[object, ...]) -> Message:
        """Make a call and wait for its answer; raises Refused."""
        serial = self._send(method, signature, body)
        while (message := self._receive()).header.fields.get(HeaderFields.reply_serial) != serial:
            pass
        if message.header.message_type is MessageType.error:
            raise Refused(_said(message))
        return message

    def _send(self, method: str, signature: str, body: tuple[object, ...]) -> int:
        self._serial += 1
        with _answering():
            self._connection.sendall(new_method_call(MANAGER, method, signature, body).serialise(self._serial))
        return self._serial

    def _receive(self) -> Message:
        while (message := self._parser.get_next_message()) is None:
            with _answering():
                data = self._connection.recv(65536)
                if not data:
                    raise ConnectionResetError(0, "it closed the connection")
            self._parser.add_data(data)
        return message


@contextmanager
def connect(path: Path = PRIVATE) -> Iterator[Bus]:
    """A connection for the block; raises HostFault if there is no systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SILENCE)
        answer = b""
        with _answering():
            connection.connect(str(path))
            connection.sendall(HANDSHAKE)
            while answer.count(b"\r\n") < ANSWERS and (data := connection.recv(4096)):
                answer += data
        # Signals may follow at once, and the first may have come together with the answers.
        *answers, heard = answer.split(b"\r\n", ANSWERS)
        if not any(line.startswith(b"OK ") for line in answers):
            raise HostFault("systemd refused the connection to its private socket.", hint="shipit doctor")
        yield Bus(connection, heard)


def talk(work: Callable[[Bus], T], path: Path = PRIVATE) -> T:
    """Do `work` on a connection; once more from the beginning if systemd went away meanwhile, so it must be repeatable.
    Raises HostFault if systemd stays away."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with connect(path) as systemd:
                return work(systemd)
        except Gone:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def logged() -> Iterator[None]:
    """Log what systemd refuses to the journal, and go on."""
    try:
        yield
    except (HostFault, Refused) as why:
        print(f"systemd: {why}", file=sys.stderr, flush=True)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or f"nothing for {SILENCE:g} s"
        raise (Gone if isinstance(error, ConnectionError) else HostFault)(
            f"systemd does not answer on {PRIVATE}: {why}.", hint="systemctl status"
        ) from error


def _said(message: Message) -> str:
    return str(message.body[0]) if message.body else str(message.header.fields.get(HeaderFields.error_name))
