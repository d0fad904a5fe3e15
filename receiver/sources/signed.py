"""Signatures of sent files: made with `ssh-keygen -Y sign` and a user's ssh key, verified against the server's keys."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from typing import IO

from receiver.errors import Denied, Rejected
from receiver.system.run import run

# The namespace of the signature (ssh-keygen(1), -n): a signature of a commit or a mail is not valid for an artifact.
NAMESPACE = "shipit"
LONGEST = 16 * 1024


def verified(file: IO[bytes], signature: str, keys: Iterable[tuple[str, str, str]]) -> str:
    """The name of the key in `keys` (name, type, base64) that signed the whole `file`. `signature` is the base64 of
    ssh-keygen's output. Raises Rejected if it is no signature, and Denied if none of the keys made it."""
    # Slow to import, and a push needs none.
    import tempfile

    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not raw.startswith(b"-----BEGIN SSH SIGNATURE-----\n") or len(raw) > LONGEST:
        raise Rejected("This is no signature of ssh-keygen.", hint="--signature $(base64 -w0 < FILE.sig)")
    with tempfile.NamedTemporaryFile() as sig, tempfile.NamedTemporaryFile() as allowed:
        sig.write(raw)
        sig.flush()
        for name, kind, blob in keys:
            allowed.write(f'{name} namespaces="{NAMESPACE}" {kind} {blob}\n'.encode())
        allowed.flush()
        found = run(["ssh-keygen", "-Y", "find-principals", "-s", sig.name, "-f", allowed.name], check=False)
        name = found.out.strip().partition("\n")[0].partition(",")[0]
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        argv = ["ssh-keygen", "-Y", "verify", "-f", allowed.name, "-I", name, "-n", NAMESPACE, "-s", sig.name]
        done = run(argv, stdin=file.fileno(), check=False) if name and not found.code else found
        os.lseek(file.fileno(), 0, os.SEEK_SET)
    if not name or done.code:
        raise Denied(
            "The signature is not of a key that may deploy this app." if not name else
            "What was sent is not what was signed.",
            holds="Nothing was received.",
            hint="An admin adds a key: shipit ssh-keys:add NAME" if not name else "Sign the file as it is, and send it again.",
        )  # fmt: skip
    return name
