"""A guarded app: nginx asks each visitor for a name and a password (RFC 7617) before anything else.

The passwords are kept as crypt(5) hashes in a file that nginx reads at each request, so a change counts at once. nginx
checks the hash in the one thread that serves all apps. So the hash must be quick: SHA-512 with 1,000 rounds (0.5 ms),
not the 300 ms that are usual for logins.
"""

from __future__ import annotations

import ctypes
import grp
import os
import secrets

from receiver.errors import HostFault, Rejected, as_root
from receiver.ledger.ledger import Ledger
from receiver.paths import PROXY_GROUP
from receiver.system import disk

MODE = 0o640
LONGEST = 200
MOST = 511  # bytes, crypt(3)
ROUNDS = 1000
_SALT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def visitors(ledger: Ledger) -> dict[str, str]:
    """The names of those who may see the app → the hashes of their passwords."""
    try:
        lines = ledger.paths.passwords.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split(":", 1) for line in lines)


def save(ledger: Ledger, known: dict[str, str]) -> None:
    """Write the file. The caller holds the app's lock. nginx and `shipit` may read it, the app may not."""
    text = "".join(f"{name}:{hashed}\n" for name, hashed in sorted(known.items()))
    owner = (os.geteuid(), proxy_group())
    disk.write_atomically(ledger.paths.passwords, text.encode("ascii"), MODE, owner=owner)


def proxy_group() -> int:
    """The group of nginx's workers and `shipit`."""
    try:
        return grp.getgrnam(PROXY_GROUP).gr_gid
    except KeyError:
        raise HostFault(
            f"The group {PROXY_GROUP} is gone.", holds="Nothing was changed.", hint="./install.sh"
        ) from None


def hashed(password: str) -> str:
    """The salted hash of a password; raises Rejected for a password that cannot be typed."""
    typeable = 0 < len(password) <= LONGEST and password.isprintable()
    if not typeable or len(password.encode()) > MOST:
        raise Rejected(
            "This is no password.",
            holds="Nothing was changed.",
            hint=f"One line of 1 to {LONGEST} characters, and at most {MOST} bytes, on standard input.",
        )
    # Python 3.13 has no `crypt` module any more; this is Debian's library, which nginx uses, too.
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    salt = "".join(secrets.choice(_SALT) for _ in range(16))
    made: bytes | None = crypt(password.encode(), f"$6$rounds={ROUNDS}${salt}$".encode())
    if made is None or not made.startswith(b"$6$"):
        raise HostFault(
            "libcrypt knows no SHA-512.", holds="Nothing was changed.", hint=as_root("apt install libcrypt1")
        )
    return made.decode("ascii")
