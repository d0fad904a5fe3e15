"""Whether those who have a key can get in, for `shipit doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from receiver.caller import Role
from receiver.errors import Failure
from receiver.gate.keys import Keyring
from receiver.paths import SHIPIT_USER, Layout
from receiver.story.examine import Finding


def key_findings(layout: Layout) -> Iterator[Finding]:
    """Look at the keys, and at the lines that sshd reads. As `shipit`, whose files they are."""
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
    """Write the lines that sshd reads again. Raises Failure when somebody has damaged our part of the file."""
    Keyring(layout).write_lines()
