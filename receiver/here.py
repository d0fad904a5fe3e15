"""How the reader of a message reaches this server, so that the commands in it can be pasted.

Messages contain the word HOST for the server and `shipit …` for a command. The entry points record once, in the
process's environment, whether the reader is on the server itself or came over ssh.
"""

from __future__ import annotations

import os

# ssh(1)'s words for this server, `shipit@example.org` or `-p 2222 shipit@example.org`.
HOST = "SHIPIT_HOST"
# Set if the reader is not on the server: then `shipit …` becomes `ssh HOST …`, except for commands that only root may
# run.
REMOTE = "SHIPIT_REMOTE"
_COMMAND, _URL = r"(^|: +|\n)shipit (?!doctor|apt:allow)(?=[a-z])", r"\bHOST:(?=\w)"
# Behind the host ssh would take an option for its own, so the word `shipit` stays before it.
_OPTION = r"(^|: +|\n)(?=shipit --)"


def say_where(user: str, host: str, port: int, *, remote: bool) -> None:
    """Note in the environment how this server is reached."""
    os.environ[HOST] = f"{user}@{host}" if port == 22 else f"-p {port} {user}@{host}"
    if remote:
        os.environ[REMOTE] = "1"


def address(domain: str, connection: str) -> str:
    """The server's DNS name if it has one, else the address that the login came to (SSH_CONNECTION, ssh(1)), else the
    machine's own name."""
    reached = connection.split()
    if "." in domain:
        return domain
    return reached[2] if len(reached) == 4 else os.uname().nodename


def typed(text: str) -> str:
    """The text with this server's address, and its commands as they are typed where the reader is."""
    ssh = os.environ.get(HOST, "")
    if not ssh:
        return text
    # A laptop has no need of it, and no time.
    import re

    if REMOTE in os.environ:
        text = re.sub(_COMMAND, rf"\1ssh {ssh} ", text)
        text = re.sub(_OPTION, rf"\1ssh {ssh} ", text)
    *port, user = ssh.removeprefix("-p ").split(" ")
    text = re.sub(_URL, f"ssh://{user}:{port[0]}/" if port else f"{user}:", text)
    return re.sub(r"\bHOST\b", ssh, text)
