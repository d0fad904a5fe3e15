"""Checks for `shipit doctor` that people who have a key can log in."""

from __future__ import annotations

from collections.abc import Iterator

from receiver.caller import Role
from receiver.errors import Failure
from receiver.gate.keys import Keyring
from receiver.paths import SHIPIT_USER, Layout
from receiver.story.finding import Finding


def key_findings(layout: Layout) -> Iterator[Finding]:
    """Check the keys, and the lines that sshd reads. Runs as `shipit`, which owns these files."""
    ring = Keyring(layout)
    try:
        keys, written = ring.all(), ring.is_written()
    except Failure as failure:
        yield Finding("host", failure.message, False, failure.hint)
        return
    except OSError as error:
        yield Finding(
            "host",
            f"{error.filename} cannot be read ({error.strerror})",
            False,
            f"sudo chown {SHIPIT_USER}: {error.filename}",
        )
        return
    admins = sum(key.role is Role.ADMIN for key in keys)
    yield Finding(
        "host", f"{len(keys)} ssh keys, {admins} of admins", bool(admins),
        "Nobody can add a key over ssh. Add one: shipit ssh-keys:add NAME --role admin < id_ed25519.pub",
    )  # fmt: skip
    what = (
        "sshd finds the line of every key"
        if written
        else f"{layout.authorized_keys} does not hold the lines of the keys"
    )
    yield Finding("host", what, written, mends=True)


def mend_keys(layout: Layout) -> None:
    """Write the lines that sshd reads again. Raises Failure if our part of the file was damaged."""
    Keyring(layout).write_lines()
