"""ssh as the client uses it: one connection for many commands, kept for a minute (ssh_config(5), ControlMaster)."""

from __future__ import annotations

import os

# A unix socket's path has 107 bytes at most (unix(7)); ssh makes it beside, with 17 bytes more, and %C are 40.
LONGEST = 107 - 17 - 41
KEEP = 60


def argv(*, share: bool = True) -> list[str]:
    """The program and the options that go before a destination. GIT_SSH_COMMAND is heeded as git heeds it: who pushes
    through it asks through it."""
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
    """Where the shared connections are, a directory that only this user can enter; None when its path is too long."""
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
