"""`shipit deploy FILE`: sends an archive or a package to `deploy APP -` on the server, with its signature if there is
one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from receiver.client import ssh
from receiver.client.pack import signature_of
from receiver.client.remote import Remote
from receiver.client.words import Asked, pack
from receiver.errors import Rejected
from receiver.system.run import start


def send(path: Path, server: Remote, *, drop_web: bool) -> int:
    """Send the file and follow its release; returns the exit code, which is the verdict's."""
    if not server.app:
        raise Rejected("Which app?", hint=f"shipit --app NAME deploy {path}")
    signature = signature_of(path)
    meant = ("--drop-web",) if drop_web else ()
    words = ("deploy", server.app, "-", *(("--signature", signature) if signature else ()), *meant)
    sys.stderr.write(
        f"-----> Sending {path.name}, {path.stat().st_size / 2**20:.1f} MiB{', signed' * bool(signature)}\n"
    )
    sys.stderr.flush()
    with path.open("rb") as file:
        asked = pack(Asked(words, server.app))
        code = start([*ssh.argv(), "-T", *server.ssh, asked], env=os.environ, stdin=file.fileno()).wait()
    return code if code >= 0 else 128 - code
