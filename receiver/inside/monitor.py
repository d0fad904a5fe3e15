"""A running qemu, over its monitor. Standard library only."""

from __future__ import annotations

import json
import socket


class Monitor:
    """qemu's monitor (QMP: one JSON object a line)."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._rest = b""
        self._probes: list[socket.socket] = []
        self._forward = ""
        # qemu answers: it does so once it has read all its arguments and files.
        self.started = False
        # Whether something in the machine has taken a connection of ours.
        self.listens = False
        # The machine has stopped for good, because KVM failed.
        self.fault = False
        # The machine is paused until the server's disk has room for what it writes.
        self.full = False

    def fileno(self) -> int:
        return self._pipe.fileno()

    def read(self) -> bool:
        """Read its messages; False if it has closed the connection."""
        try:
            said = self._pipe.recv(65536)
        except OSError:
            said = b""
        *whole, self._rest = (self._rest + said).split(b"\n")
        for line in whole:
            heard = json.loads(line)
            if "QMP" in heard:
                self.tell("qmp_capabilities")
            elif isinstance(heard.get("return"), str):
                self._look(heard["return"])
            elif heard.get("event") == "STOP":
                self.tell("query-status")
            elif heard.get("event") == "RESUME":
                self.full = False
            elif "return" in heard:
                self.started = True
                status = heard["return"].get("status")
                self.fault = self.fault or status == "internal-error"
                self.full = self.full or status == "io-error"
        return bool(said)

    def tell(self, command: str, **arguments: str) -> None:
        with_them = {"arguments": arguments} if arguments else {}
        try:  # noqa: SIM105
            self._pipe.sendall(json.dumps({"execute": command, **with_them}).encode() + b"\n")
        except OSError:
            pass  # it is ending

    def probe(self, port: int) -> None:
        """Connect, and ask qemu what came of it: qemu itself accepts every connection, even if nothing listens."""
        self._forward = str(port)
        probe = socket.socket()
        probe.setblocking(False)
        probe.connect_ex(("127.0.0.1", port))
        self._probes.append(probe)
        self.tell("human-monitor-command", **{"command-line": "info usernet"})

    def stop_probing(self) -> None:
        while self._probes:
            self._probes.pop().close()

    def _look(self, table: str) -> None:
        rows = [row.split() for row in table.splitlines()]
        if any(row[:1] == ["TCP[ESTABLISHED]"] and self._forward in row for row in rows):
            self.listens = True
        # Keep only the newest probes: an answer to an older one would come too late.
        while len(self._probes) > 4:
            self._probes.pop(0).close()
