"""Has sshd send the small packets of a login at once: TCP_NODELAY on its listening sockets, which what they accept
inherits (tcp(7)).

sshd sets it by itself, but only when it starts the command. Until then a packet waits for the client to acknowledge the
last one, which the client puts off for 40 ms (decision 13). Lost whenever sshd makes its sockets anew (a restart, a
reload), so it is done again beside the next login of `shipit` (templates/systemd/shipit-ssh-nodelay.service).

As root with CAP_SYS_PTRACE and no other power: pidfd_getfd(2) gives a copy of another process's descriptor. Nothing of
the other process is changed but this option.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

PID_FILE = Path("/run/sshd.pid")  # sshd_config(5), PidFile; Debian's and Ubuntu's
INTERNET = (socket.AF_INET, socket.AF_INET6)
SYS_PIDFD_GETFD = 438  # on every architecture (Linux 5.6)


def main() -> None:
    """Set it where a sshd listens. A kernel that does not allow it is told in the journal, and not asked at every login."""
    try:
        for listening in listening_sockets(sshd()):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        print(
            f"sshd's sockets stay as they are: logins work, and take 40 ms longer ({error})."
            " Try again: systemctl restart shipit-ssh-nodelay",
            file=sys.stderr,
        )


def sshd(pid_file: Path = PID_FILE) -> int:
    """The process of sshd that listens, 0 if there is none."""
    try:
        pid = int(pid_file.read_text())
        return pid if (Path("/proc") / str(pid) / "exe").readlink().name == "sshd" else 0
    except (FileNotFoundError, ValueError):
        return 0


def listening_sockets(pid: int) -> Iterator[socket.socket]:
    """Copies of those descriptors of a process (none for 0) on which it waits for TCP connections; raises OSError."""
    if not pid:
        return
    getfd = ctypes.CDLL(None, use_errno=True).syscall
    process = os.pidfd_open(pid)
    try:
        for entry in (Path("/proc") / str(pid) / "fd").iterdir():
            try:
                if not str(entry.readlink()).startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue  # one of those that sshd opens and closes with each login
            copy = getfd(SYS_PIDFD_GETFD, process, int(entry.name), 0)
            if copy < 0 and ctypes.get_errno() == errno.EBADF:
                continue  # the same, a moment later
            if copy < 0:
                raise OSError(ctypes.get_errno(), f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                os.close(copy)  # its number has gone to another file meanwhile
                continue
            with socket.socket(fileno=copy) as found:
                if found.family in INTERNET and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield found
    finally:
        os.close(process)
