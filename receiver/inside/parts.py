"""Lists what was installed for a release: runs as its builder, in the slug, and prints a line of JSON for each part.

A build has written all of it, so it is read as untrusted data. Only the links that shipit's own build makes are
followed. The number of files and the bytes read of each are limited.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import asdict
from itertools import islice

from receiver.runtimes.all import RUNTIMES

MOST = 50_000  # parts
MOST_NAMES = 200_000  # of one directory
TOO_MANY = 3  # the exit code


class Below:
    """`receiver.runtimes.base.Slug` of a directory. `slugs` has all slugs of the app. A link at the top to the same
    name in another slug is followed (a directory that releases share); no other link is."""

    def __init__(self, top: str, slugs: str) -> None:
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self._slugs = slugs

    def names(self, directory: str) -> list[str]:
        try:
            fd = self._open(directory, os.O_DIRECTORY) if directory else os.dup(self._top)
        except (OSError, ValueError):
            return []
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in islice(entries, MOST_NAMES))
        except OSError:
            return []
        finally:
            os.close(fd)

    def read(self, path: str, most: int) -> bytes:
        try:
            # Opening a FIFO must not wait for its other end.
            fd = self._open(path, os.O_NONBLOCK)
        except (OSError, ValueError):
            return b""
        try:
            return os.pread(fd, most, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        except OSError:
            return b""
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        first, *rest = path.split("/")
        place = first
        with suppress(OSError):
            shared = os.readlink(first, dir_fd=self._top)
            if re.fullmatch(rf"{re.escape(self._slugs)}/v[0-9]+/{re.escape(first)}", shared):
                place = shared
        words = [place, *rest]
        at = os.dup(self._top)
        for number, word in enumerate(words):
            last = number == len(words) - 1
            if word in ("", ".", "..") or (number and "/" in word):
                os.close(at)
                raise FileNotFoundError(path)
            try:
                wanted = flags if last else os.O_DIRECTORY
                found = os.open(word, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | wanted, dir_fd=at)
            finally:
                os.close(at)
            at = found
        return at


def main(argv: list[str]) -> None:
    """Print what each runtime finds in the working directory; always ends by SystemExit."""
    slug = Below(".", argv[0])
    seen = set()
    for runtime in RUNTIMES:
        for part in runtime.parts(slug):
            if part in seen:
                continue
            seen.add(part)
            if len(seen) > MOST:
                raise SystemExit(TOO_MANY)
            print(json.dumps(asdict(part)), flush=False)
    raise SystemExit(0)
