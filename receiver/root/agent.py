"""The agent: root's end of each connection, in a fork. It reads requests (wire.py), has verbs/ do them, answers.

It trusts only what the kernel says about the peer (SO_PEERCRED, unix(7)) and the closed grammar of a request. The
details of an unexpected error go to the journal; the peer is told only that there was one.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import pwd
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from receiver import wire
from receiver.engines import all as all_engines
from receiver.engines.all import Engines
from receiver.errors import Failure, HostFault, Rejected, sick_disk
from receiver.paths import SHIPIT_USER, Layout
from receiver.proxy.vhost import TEMPLATES
from receiver.root.verbs.all import Verbs
from receiver.system.journal import lines_may_be_lost
from receiver.system.listener import FIRST_FD, IDLE, fork_for_each
from receiver.system.render import prepared

BACKLOG = 64
# Seconds after a login before modules are imported that not every request needs: the login needs the processors first.
PAUSE = 0.2
# Seconds of silence after which the client is probably a push that waits for git to receive the objects.
A_PUSH = 0.15
MAX_FDS = max(wire.FDS.values())
POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)


def main(argv: list[str]) -> None:
    """`agent` listens on the socket that systemd passed, `--listen` on one that it makes; `--reconcile-all`,
    `--certify-all` and `--renew-proxy` do just that and end."""
    layout = Layout()
    lines_may_be_lost("shipit-agent")
    # Files of the agent belong to root, readable by all unless a mode says otherwise; shipit can use its locks.
    os.umask(0o022)
    if argv == ["--reconcile-all"]:
        from receiver.root.reconcile import reconcile_all

        raise SystemExit(reconcile_all(layout, all_engines.here(layout)))
    if argv == ["--certify-all"]:
        from receiver.root.certificates import certify_all

        raise SystemExit(certify_all(layout, all_engines.here(layout)))
    if argv == ["--renew-proxy"]:
        from receiver.proxy.renew import renew_told

        raise SystemExit(renew_told(layout))
    own = argv == ["--listen"]
    engines = all_engines.here(layout)
    ahead = chain(imports(), engines.ahead(), prepared(*TEMPLATES))
    # Load the name service now, so that no fork has to (nsswitch.conf(5)).
    with suppress(KeyError):
        pwd.getpwnam(SHIPIT_USER)
    with bound(layout) if own else socket.socket(fileno=FIRST_FD) as server:
        fork_for_each(
            server,
            lambda connection: serve(layout, connection, engines, ahead),
            ahead=ahead,
            pause=PAUSE,
            idle=None if own else IDLE,
        )
    raise SystemExit(0)


def serve(layout: Layout, connection: socket.socket, engines: Engines, ahead: Iterator[None]) -> int:
    """Answer requests until the peer closes; returns an exit code. `ahead`: work to do while no request is there."""
    os.set_inheritable(connection.fileno(), False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    if not allowed(connection):
        log(verb="connect", result="refused", uid=peer(connection)[1])
        return 1
    while not asked(connection) and next(ahead, "over") is None:
        pass
    if not asked(connection, A_PUSH):
        engines.expect_jobs()
    verbs = Verbs(layout, engines, lambda job: stopped_when_gone(connection, engines, job))
    while True:
        try:
            received = receive(connection)
            if received is None:
                return 0
            line, fds, sender = received
        except Rejected as failure:
            send(connection, {"error": wire.encode_error(failure)})
            return 1
        try:
            answer = respond(verbs, line, fds, sender)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            send(connection, answer)
        except OSError:
            return 0
        verbs.ahead()


def allowed(connection: socket.socket) -> bool:
    """Whether the kernel says that the peer is `shipit` or root."""
    uid = peer(connection)[1]
    try:
        return uid in (0, pwd.getpwnam(SHIPIT_USER).pw_uid)
    except KeyError:
        return uid == 0


def peer(connection: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid of the peer at the time it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, wire.CREDENTIALS.size)
    pid, uid, gid = wire.CREDENTIALS.unpack(raw)
    return pid, uid, gid


def asked(connection: socket.socket, seconds: float = 0) -> bool:
    """Whether there is something to read within `seconds`."""
    return bool(select.select([connection], [], [], seconds)[0])


def imports() -> Iterator[None]:
    """Import what most requests need, and ask nginx for its version; one part for each step of the iterator."""
    for name in ("hashlib", "receiver.proxy.nginx", "yaml"):
        importlib.import_module(name)
        yield
    from receiver.proxy import nginx

    # If nginx is missing, the request that needs it reports that.
    with suppress(HostFault):
        nginx.version()
    yield


def receive(connection: socket.socket) -> tuple[bytes, list[int], int] | None:
    """One line, the descriptors that came with it, and who sent it (a pid); None when the peer has closed.

    One request at a time: bytes after the line's end are a protocol error (Rejected), and so is a line longer
    than MAX_REQUEST.
    """
    parts: list[bytes] = []
    size, fds, sender = 0, array.array("i"), 0
    room = socket.CMSG_SPACE(MAX_FDS * fds.itemsize) + socket.CMSG_SPACE(wire.CREDENTIALS.size)
    try:
        while True:
            part, ancillary, _, _ = connection.recvmsg(65536, room)
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    sender = wire.CREDENTIALS.unpack(data)[0]
            if not part:
                if parts:
                    raise Rejected("The request was cut off.")
                return None
            parts.append(part)
            size += len(part)
            if size > wire.MAX_REQUEST:
                raise Rejected(f"The request is larger than {wire.MAX_REQUEST // 1024} KiB.")
            if b"\n" in part:
                line, _, rest = b"".join(parts).partition(b"\n")
                if rest:
                    raise Rejected("More than one request at a time.")
                for fd in fds:
                    os.set_inheritable(fd, False)
                return line, list(fds), sender
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def respond(verbs: Verbs, line: bytes, fds: Sequence[int], sender: int = 0) -> dict[str, Any]:
    """Decode and do the request; returns the answer and logs it to the journal. Never raises."""
    began = time.monotonic()
    known: dict[str, Any] = {"verb": "?"}
    try:
        request = replace(wire.decode_request(line), sender=sender)
        known = {"verb": request.verb.value, "app": request.app, "release": request.release}
        if len(fds) != wire.FDS.get(request.verb, 0):
            raise Rejected(f"{request.verb.value}: wrong number of descriptors.")
        answer = {"ok": verbs.do(request, fds)}
        result = "ok"
    except Failure as failure:
        answer = {"error": wire.encode_error(failure)}
        result = f"{type(failure).__name__}: {failure.message}"
    except Exception as error:  # noqa: BLE001 - no error may end the agent's answer to a request
        traceback.print_exc()
        answer = {"error": wire.encode_error(unexpected(error, all_engines.hints().agent_log))}
        result = type(error).__name__
    log(**known, seconds=round(time.monotonic() - began, 4), result=result)
    return answer


def unexpected(error: Exception, log_hint: str) -> Failure:
    if full := sick_disk(error):
        return full
    if isinstance(error, OSError) and error.strerror:
        # The kind of error (no space, read-only) helps the peer; which file it was stays in the journal.
        return HostFault(f"The server could not do it: {error.strerror}.", hint="shipit doctor")
    return HostFault("The agent failed.", hint=f"The server's administrator finds why: {log_hint}")


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def log(**known: Any) -> None:
    """Print one JSON line for the journal; only verbs, names and numbers, never a value."""
    print(json.dumps(known), file=sys.stderr, flush=True)


@contextmanager
def stopped_when_gone(connection: socket.socket, engines: Engines, job: str) -> Iterator[None]:
    """Stop the job as soon as the peer hangs up: its output would go nowhere, and nothing else would end it."""
    over = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(connection, POLLRDHUP)
        while not over.wait(0.1):
            if poll.poll(0):
                # The job may not have begun yet, so this is repeated until the block ends.
                engines.stop_job(job)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def bound(layout: Layout) -> socket.socket:
    """The socket on a machine without systemd, for `shipit` and root as in shipit-agent.socket."""
    group = pwd.getpwnam(SHIPIT_USER).pw_gid
    layout.agent_socket.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o177)
    server.bind(os.fspath(layout.agent_socket))
    os.umask(0o022)
    os.chown(layout.agent_socket, 0, group)
    layout.agent_socket.chmod(0o660)
    server.listen(BACKLOG)
    return server
