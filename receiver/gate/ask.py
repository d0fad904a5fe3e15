"""What sshd starts for a login: it hands the login to the gateway service (listen.py), waits, and ends with its exit
code.

The login wakes that service (templates/systemd/login.dropin), so nobody waits for its imports. This program imports
only modules that the interpreter has loaded anyway.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

# The same as in paths.Layout, which takes too long to import here.
GATEWAY = "/run/shipit/gateway.sock"
# The gateway's first byte, when it has the request; the next byte is the exit code.
TAKEN = b"!"
# What we send it for Ctrl-C; it notices by itself when this program is gone.
INTERRUPT = b"\x03"
# The shell of the account, and the command in every line of authorized_keys (keys.py).
COMMAND = "/usr/lib/shipit/current/share/shipit/libexec/gateway"
LOST = """\
 !     The gateway ended before it had answered.
 !     What was begun goes on; see what became of it: shipit releases APP
"""


def key_of(words: list[str]) -> list[str]:
    """The name and the fingerprint of the key, from our arguments; empty if these have any other form.

    sshd runs every command of a user through the user's login shell, however the user logged in. That shell is this
    program, so a login that did not come by a line of authorized_keys leads nowhere.
    """
    if len(words) == 2 and words[0] == "-c":
        program, *words = words[1].split(" ")
        if program != COMMAND:
            return []
    return words if len(words) == 2 else []


def ask(key: list[str]) -> int | None:
    """Have the gateway serve the key on our standard input, output and error; returns its exit code.

    None if no gateway has taken the request: then nothing was done.
    """
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.connect(GATEWAY)
        body = b"\0".join([os.fsencode(" ".join(key)), *(key + b"=" + value for key, value in os.environb.items())])
        message = len(body).to_bytes(4, "big") + body
        fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
        sent = connection.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, fds)])
        # send(2) also fails if the gateway has answered already and is gone.
        if rest := message[sent:]:
            connection.sendall(rest)
        if connection.recv(1) != TAKEN:
            return None
    except OSError:
        return None
    except KeyboardInterrupt:
        # If the gateway has taken the request, it ends when we do.
        return 130
    try:
        code = answer(connection)
    except OSError:
        code = b""
    if not code:
        os.write(2, LOST.encode())
        return 70
    return code[0]


def answer(connection: socket) -> bytes:
    """The exit code in a byte; none if the gateway was killed."""
    while True:
        try:
            return connection.recv(1)
        except KeyboardInterrupt:
            connection.sendall(INTERRUPT)
