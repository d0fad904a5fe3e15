"""Which program was started when, on one of the measured machines: the kernel's own word (proc connector, cn_proc.h).

The machines share this one's kernel, so nothing is added to what is watched: no tracer, no agent inside.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

CONNECTOR, CN_IDX_PROC, CN_VAL_PROC, LISTEN = 11, 1, 1, 1
EXEC, EXIT = 0x00000002, 0x80000000
HEADER = 16 + 20  # struct nlmsghdr, struct cn_msg


@dataclass
class Program:
    """One execve, and when that process ended (s, monotonic clock; 0: not while we looked)."""

    at: float
    pid: int
    words: list[str]
    ended: float = 0.0

    @property
    def line(self) -> str:
        return " ".join(self.words)


class Timeline:
    """Collects while the block runs; `programs` are those whose control group lies below `group`."""

    def __init__(self, group: str) -> None:
        self._group = f"/{group}/"
        self.programs: list[Program] = []
        self._last: dict[int, Program] = {}
        self._over = False

    def __enter__(self) -> Timeline:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, CONNECTOR)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 2**20)
        self._socket.bind((0, CN_IDX_PROC))
        message = struct.pack("=IIIIHHI", CN_IDX_PROC, CN_VAL_PROC, 0, 0, 4, 0, LISTEN)
        self._socket.send(struct.pack("=IHHII", 16 + len(message), 3, 0, 0, os.getpid()) + message)
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()

    def _collect(self) -> None:
        while not self._over:
            with suppress(TimeoutError):
                self._note(self._socket.recv(4096))

    def _note(self, message: bytes) -> None:
        what, _, nanoseconds = struct.unpack_from("=IIQ", message, HEADER)
        pid, thread_group = struct.unpack_from("=II", message, HEADER + 16)
        if what == EXEC:
            # A process that is gone already, or is somebody else's, is of no interest.
            with suppress(OSError):
                if self._group in Path(f"/proc/{pid}/cgroup").read_text():
                    words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
                    program = Program(nanoseconds / 1e9, pid, words)
                    self.programs.append(program)
                    self._last[pid] = program
        elif what == EXIT and pid == thread_group and pid in self._last:
            self._last.pop(pid).ended = nanoseconds / 1e9

    def moment(self, words: Sequence[str], *, after: float, end: bool = False) -> float | None:
        """When the first program whose command line holds all these words was started, or has ended."""
        for program in self.programs:
            # systemd-run names in its own command line what it will start.
            if program.line.startswith("systemd-run ") and words[0] != "systemd-run":
                continue
            if program.at >= after and all(word in program.line for word in words):
                return (program.ended or None) if end else program.at
        return None

    def told(self, zero: float) -> str:
        """Every program, a line each: milliseconds from `zero`, how long it ran, what it was."""
        lines = []
        for program in self.programs:
            took = f"{(program.ended - program.at) * 1000:6.0f}" if program.ended else "     …"
            lines.append(f"{(program.at - zero) * 1000:6.0f} {took}  {program.line[:140]}")
        return "\n".join(lines)
