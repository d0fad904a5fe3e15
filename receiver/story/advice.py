"""What the last lines of a process say of its trouble, where we know the way out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from receiver.names import AppName

_READ_ONLY = re.compile(
    r"Read-only file system|\bEROFS\b|read-only file system|unable to open database file|"
    r"attempt to write a readonly database|readonly database|"
    r"(?:PermissionError|Permission denied|EACCES).*?/var/lib/shipit/apps/[^/]+/slugs/"
)
# Python names the file behind, Node before the code; SQLite names none.
_FILE = re.compile(r"(?:Read-only file system|Permission denied):? '([^']+)'|(?:mkdir|open) '([^']+)'")
_HOSTS = re.compile(r"Invalid HTTP_HOST header: '([^']+)'|add '?([^' ]+)'? to ALLOWED_HOSTS|DisallowedHost")


def advice(app: AppName, lines: Iterable[str]) -> str:
    """What to write, for the newest line that we know; "" for none."""
    for line in reversed([*lines]):
        if _READ_ONLY.search(line):
            found = _FILE.search(line)
            name = (found[1] or found[2]).rstrip("/").rpartition("/")[2] if found else "the file"
            return (
                f"A release is read-only. Write below $DATA_DIR (/var/lib/shipit/apps/{app}/data), which stays over releases: "
                f"$DATA_DIR/{name}{'' if found else ' instead of beside the code'}"
            )
        if found := _HOSTS.search(line):
            return f"Add {found[1] or found[2] or 'the app’s domain'} to ALLOWED_HOSTS of Django's settings."
    return ""
