"""ssh as the client uses it: one connection for many commands, kept for a minute (ssh_config(5), ControlMaster)."""

from __future__ import annotations

import os

# The path of a unix socket has at most 107 bytes (unix(7)); ssh first adds 17 bytes to the name, and %C are 40.
LONGEST = 107 - 17 - 41
KEEP = 60


def argv(*, share: bool = True) -> list[str]:
    """The program and the options before the destination. GIT_SSH_COMMAND is used as git uses it, so that pushes and
    commands go the same way."""
    words = ["ssh"]
    if theirs := os.environ.get("GIT_SSH_COMMAND", ""):
        import shlex

        words = shlex.split(theirs) or words
    place = directory() if share else None
    if place is None:
        return words
    return [
        *words, "-o", "ControlMaster=auto", "-o", f"ControlPersist={KEEP}", "-o", f"ControlPath={place}/%C",
    ]  # fmt: skip


def directory() -> str | None:
    """The directory of the shared connections, which only this user can enter; None if its path is too long."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    place = f"{runtime}/shipit" if runtime else os.path.expanduser("~/.cache/shipit/ssh")
    if len(os.fsencode(place)) > LONGEST:
        return None
    try:
        if not os.path.lexists(place):
            os.makedirs(place, mode=0o700, exist_ok=True)
        owner = os.lstat(place)
    except OSError:
        return None
    return place if owner.st_uid == os.getuid() and owner.st_mode & 0o077 == 0 else None
