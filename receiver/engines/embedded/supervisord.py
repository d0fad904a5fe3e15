"""Talking to supervisord: its files, and its XML-RPC interface over a unix socket."""

from __future__ import annotations

import http.client
import socket
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from receiver.engines.embedded.programs import Program
from receiver.errors import HostFault, as_root
from receiver.paths import Layout
from receiver.system import disk

# supervisor/process.py, ProcessStates
STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL = 0, 10, 20, 30, 40, 100, 200
# supervisor/xmlrpc.py, Faults
BAD_NAME, ALREADY_STARTED, NOT_RUNNING, ALREADY_ADDED, STILL_RUNNING = 10, 60, 70, 90, 91

DROP_WITHIN = 30.0  # seconds


def write(layout: Layout, program: Program) -> bool:
    """Put a program's file and its log's directory in place; True if the file changed."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    path, data = layout.supervisor / f"{program.name}.conf", program.text().encode()
    if path.exists() and path.read_bytes() == data:
        return False
    disk.write_atomically(path, data, 0o644)
    return True


def config(layout: Layout) -> Path:
    return layout.etc / "supervisord.conf"


def control_socket(layout: Layout) -> Path:
    return layout.run / "supervisor.sock"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


class Supervisor:
    """supervisord's remote procedures; raises HostFault if it does not answer."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def call(self, method: str, *words: Any, ignore: Sequence[int] = ()) -> Any:
        """One procedure of the namespace `supervisor`; the faults in `ignore` give None. Raises HostFault."""
        path = control_socket(self._layout)
        # A new connection for each call: supervisord closes idle ones, and a retried call could run twice.
        with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(path)) as proxy:
            try:
                return getattr(proxy.supervisor, method)(*words)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode in ignore:
                    return None
                raise HostFault(
                    f"The process supervisor refuses {method}: {fault.faultString}",
                    hint=as_root("tail /var/log/shipit/supervisord.log"),
                ) from fault
            except (OSError, http.client.HTTPException) as error:
                raise HostFault(
                    f"The process supervisor does not answer: {error}",
                    holds="Processes that run go on running.",
                    hint="shipit-supervisord start",
                ) from error

    def answers(self) -> bool:
        try:
            self.call("getState")
        except HostFault:
            return False
        return True

    def programs(self) -> dict[str, Mapping[str, Any]]:
        """What supervisord knows of each program (state, pid, start, spawnerr …), by name."""
        return {info["name"]: info for info in self.call("getAllProcessInfo")}

    def load(self, names: Sequence[str]) -> None:
        """Make it load these programs, whose files are in place; those with autostart are started."""
        self.call("reloadConfig")
        for name in names:
            self.call("addProcessGroup", name, ignore=[ALREADY_ADDED])

    def start(self, name: str) -> None:
        """Start a program; returns when it was executed. Nothing happens if it runs already."""
        self.call("startProcess", name, False, ignore=[ALREADY_STARTED])

    def stop(self, name: str) -> None:
        """Tell a program to stop (its signal, its drain, SIGKILL) and return at once."""
        self.call("stopProcess", name, False, ignore=[NOT_RUNNING, BAD_NAME])

    def forget(self, name: str) -> bool:
        """Drop a stopped program; False if it still runs."""
        return self.call("removeProcessGroup", name, ignore=[BAD_NAME, STILL_RUNNING]) is not None

    def drop(self, name: str) -> None:
        """Stop a program, wait for its end, and forget it; raises HostFault if it does not stop."""
        self.stop(name)
        deadline = time.monotonic() + DROP_WITHIN
        while not self.forget(name) and name in self.programs():
            if time.monotonic() > deadline:
                raise HostFault(f"{name} does not stop.", hint="shipit-supervisord stop; shipit-supervisord start")
            time.sleep(0.02)
