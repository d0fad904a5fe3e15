"""A build step: unpacks an RPM package into a directory, as the build's user; does not even read its scripts.

python -m receiver.runtimes.package.unpack FILE.rpm DIRECTORY
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from receiver.errors import Failure
from receiver.runtimes.package.rpm import Rpm

CHUNK = 2**20


def unpack(file: str, directory: str) -> None:
    """Raises Failure, and the decompressors' errors. Links are made last, so nothing is written through one."""
    top = Path(directory)
    top.mkdir()
    links: list[tuple[Path, str]] = []
    waiting: dict[tuple[int, ...], list[Path]] = {}
    with Path(file).open("rb") as packed:
        for entry in Rpm(packed).entries():
            place = top / entry.path
            if stat.S_ISDIR(entry.mode):
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(entry.mode):
                links.append((place, os.fsdecode(entry.content.read(4096))))
            elif stat.S_ISREG(entry.mode) and entry.same and not entry.size:
                waiting.setdefault(entry.same, []).append(place)
            elif stat.S_ISREG(entry.mode):
                fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                with open(fd, "wb") as out:  # noqa: PTH123 - a descriptor
                    while chunk := entry.content.read(CHUNK):
                        out.write(chunk)
                # No set-user-id or set-group-id bit.
                place.chmod(0o755 if entry.mode & 0o111 else 0o644)
                for other in waiting.pop(entry.same, []) if entry.same else []:
                    os.link(place, other)
    for places in waiting.values():
        for place in places:
            place.touch()
    for place, target in links:
        place.symlink_to(target)


if __name__ == "__main__":
    try:
        unpack(sys.argv[1], sys.argv[2])
    except Failure as failure:
        raise SystemExit("\n".join(failure.lines())) from None
