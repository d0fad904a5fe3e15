"""What sshd starts for a login: hands it to the gateway that is up (listen.py), waits, and ends with its exit code.

The login has woken that gateway (templates/systemd/login.dropin), so nobody waits for its imports. This imports nothing
that the interpreter has not loaded already.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

# As in paths.Layout, which takes too long to import here.
GATEWAY = "/run/shipit/gateway.sock"
# What the gateway says when it has the request; the next byte is the exit code.
TAKEN = b"!"
# What it is told when somebody types Ctrl-C; when this program is gone it sees that by itself.
INTERRUPT = b"\x03"
# The account's shell, and what every line of authorized_keys names (keys.py).
COMMAND = "/usr/lib/shipit/current/share/shipit/libexec/gateway"
LOST = """\
 !     The gateway ended before it had answered.
 !     What was begun goes on; see what became of it: shipit releases APP
"""


def key_of(words: list[str]) -> list[str]:
    """The name and the fingerprint of the key, as our arguments say; nothing if they are anything else.

    sshd runs all that it runs for a user through the user's shell, whichever way somebody came in. That shell is this
    program, so a way in that is none of authorized_keys' lines leads nowhere.
    """
    if len(words) == 2 and words[0] == "-c":
        program, *words = words[1].split(" ")
        if program != COMMAND:
            return []
    return words if len(words) == 2 else []


def ask(key: list[str]) -> int | None:
    """Have the gateway serve the key on our standard input, output and error; returns its exit code.

    None when no gateway has taken the request: nothing was done then.
    """
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.connect(GATEWAY)
        body = b"\0".join([os.fsencode(" ".join(key)), *(key + b"=" + value for key, value in os.environb.items())])
        message = len(body).to_bytes(4, "big") + body
        fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
        sent = connection.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, fds)])
        # Sending nothing is an error, too, when the gateway has answered by then and is gone.
        if rest := message[sent:]:
            connection.sendall(rest)
        if connection.recv(1) != TAKEN:
            return None
    except OSError:
        return None
    except KeyboardInterrupt:
        # If it was taken all the same, the gateway ends when we do.
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
