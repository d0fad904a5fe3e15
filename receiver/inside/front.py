"""The front of a process that only knows $PORT: it listens on a unix socket, as all processes do, and relays to the
port.

The launcher starts it as a child of the process that it serves, so both end together. It listens at once, but accepts
no connection before the process listens: until then connections wait in the socket's backlog, and none is refused.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import socket
import sys
import time

from receiver.inside.ports import PORTS

if False:  # typing is slow to import
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PROXYD = ("/usr/lib/systemd/systemd-socket-proxyd", "/lib/systemd/systemd-socket-proxyd")
BACKLOG = 1024
TICK = 0.01


def start_front(path: str, port_file: str) -> int:
    """Bind the socket `path`, start the front, and return the TCP port on which the caller must listen.

    The port is free now, and is the target of the link `port_file`. If another user's program takes it first, the
    caller is killed (SIGTERM), and its engine starts it again with another port.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(BACKLOG)
    port = free_port()
    # A link, because it takes no space: the disk of the sockets may be full.
    try:  # noqa: SIM105 - contextlib is slow to import
        os.unlink(port_file)  # noqa: PTH108
    except FileNotFoundError:
        pass
    os.symlink(str(port), port_file)  # noqa: PTH211
    forked(lambda caller: stand_before(caller, listener, port))
    listener.close()
    return port


def forked(stand: Callable[[int], None]) -> int:
    """Run `stand` with our pid in a child that is killed when we end; returns its pid. If it fails, we get SIGTERM."""
    caller = os.getpid()
    if child := os.fork():
        return child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        stand(caller)
    except BaseException as error:  # noqa: BLE001 - a fork must never return into its caller's code
        print(f"shipit: the front failed: {error}", file=sys.stderr, flush=True)
        os.kill(caller, signal.SIGTERM)
    finally:
        os._exit(1)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens; raises OSError when there is none.

    One of PORTS if any is free. Another app may hold them all: then any other unprivileged port.
    """
    for _ in range(200):
        if is_free(port := random.choice(PORTS)):
            return port
    for ports in (PORTS, range(1024, 65536)):
        for port in random.sample(ports, len(ports)):
            if is_free(port):
                return port
    raise OSError("no TCP port is free; see who has them: ss -tlnp")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def stand_before(caller: int, listener: socket.socket, port: int) -> None:
    """In the child: wait until the caller's user listens on the port, then pass connections on until it is killed."""
    # Set it again: joining another namespace has cleared it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    while (host := listens_at(port, os.getuid())) is None:
        if os.getppid() != caller:
            os._exit(0)
        time.sleep(TICK)
    # The relay takes what is before the last colon as the host: an IPv6 address needs no brackets.
    pass_on(listener, f"{host}:{port}")


def pass_on(listener: socket.socket, address: str) -> None:
    """In the child: pass connections on, to host:port or to the socket of that path, until it is killed."""
    # A connection takes up to six descriptors.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    program = next((found for found in PROXYD if os.access(found, os.X_OK)), None)
    if program is None:
        from receiver.inside.relay import relay

        relay(listener, address)
        return
    if listener.fileno() == 3:
        os.set_inheritable(3, True)
    else:
        os.dup2(listener.fileno(), 3)
    env = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LANG": "C.UTF-8"}
    os.execve(program, [program, f"--connections-max={hard // 8}", address], env)


def listens_at(port: int, uid: int) -> str | None:
    """The local address at which `uid` listens on a port, for a program to connect to; None if nobody listens yet.

    Read from the kernel (proc(5), /proc/net/tcp), not by connecting: a connection would disturb the app, and would not
    show who answers. Raises PermissionError if another user has the port (threat row 46).
    """
    for table, host in (("/proc/self/net/tcp", "127.0.0.1"), ("/proc/self/net/tcp6", "::1")):
        try:
            with open(table) as lines:  # noqa: PTH123
                next(lines)
                for row in map(str.split, lines):
                    # The kernel lists all listeners first; thousands of connections may follow.
                    if row[3] != "0A":
                        break
                    if int(row[1].rpartition(":")[2], 16) == port:
                        if int(row[7]) != uid:
                            raise PermissionError(f"port {port} was taken by the user {row[7]}")
                        return host
        except FileNotFoundError:
            continue
    return None
