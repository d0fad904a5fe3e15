"""The failures a user may see. Each says what failed, what still holds and what to type next."""

from __future__ import annotations

import errno
import os

from receiver.here import typed

TYPE_CHECKING = False  # instead of importing typing, which takes longer than this whole module
if TYPE_CHECKING:
    from collections.abc import Sequence


def printable(text: str) -> str:
    """The text with line breaks kept; every other character that could control a terminal becomes an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else ascii(c)[1:-1] for c in text)


class Failure(Exception):
    """Something expected went wrong; the entry points print it and exit with `exit_code`.

    `message` says what failed, `holds` what is still true (usually: which release serves), `hint` the next command to
    type, `details` further lines such as the last log lines of a process. None of them may contain a secret. They may
    contain names and values of a commit: all text is made `printable` here.
    """

    exit_code = 1

    def __init__(self, message: str, *, holds: str = "", hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.holds = printable(holds)
        self.hint = printable(hint)
        self.details = tuple(map(printable, details))

    def lines(self) -> list[str]:
        """The failure as lines for the user, without colour or prefix."""
        told = [*self.details, *self.message.splitlines()]
        if self.holds:
            told.append(self.holds)
        if self.hint:
            told.extend(f"({line})" if i == 0 else f" {line}" for i, line in enumerate(typed(self.hint).splitlines()))
        return told


def as_root(command: str) -> str:
    """A system command for this machine's administrator: with `sudo` if the machine has it, unless root reads this.
    shipit's own commands need no `sudo`: they call it themselves."""
    asks = os.path.exists("/usr/bin/sudo") and (os.geteuid() != 0 or "SUDO_USER" in os.environ)  # noqa: PTH110 - fast
    return f"sudo {command}" if asks else command


class Rejected(Failure):
    """The input is wrong: a name, a manifest, a branch, an option. Nothing was changed. Exit code 2."""

    exit_code = 2


class NotFound(Rejected):
    """A named thing (app, release, process, key) does not exist. Exit code 2."""


class Denied(Failure):
    """The key's role or apps do not allow this (sysexits EX_NOPERM). Exit code 77."""

    exit_code = 77


class Busy(Failure):
    """Another process holds the app (sysexits EX_TEMPFAIL). Exit code 75."""

    exit_code = 75


class Cancelled(Failure):
    """`shipit cancel` or a newer push ended the work. Exit code 130 as for an interrupted program."""

    exit_code = 130


class BuildFailed(Failure):
    """A build step or the release command failed; the release was not started."""


class Unhealthy(Failure):
    """A new process failed its healthcheck; the release was not made live. `seen`: more of its output than the message
    shows, for finding the cause."""

    seen: Sequence[str] = ()


class HostFault(Failure):
    """The server cannot do it: no disk, the agent or systemd not answering (EX_OSERR). Exit code 71."""

    exit_code = 71


def sick_disk(error: BaseException) -> HostFault | None:
    """The failure for an error of the disk: it or a quota is full, it became read-only, it is broken. None for any
    other error."""
    code = error.errno if isinstance(error, OSError) else None
    told = {
        errno.ENOSPC: "is full",
        errno.EDQUOT: "is full",
        errno.EROFS: "is read-only",
        errno.EIO: "fails",
    }.get(code or 0)
    if not told or not isinstance(error, OSError):
        return None
    hint = "Make room on the server; look with: shipit doctor"
    if told != "is full":
        hint = "The server's administrator finds why: dmesg | tail; then: shipit doctor"
    return HostFault(
        f"The disk of the server {told} ({error.strerror}).", holds="What is live was not touched.", hint=hint
    )
