"""The app's data in a slug: the builder makes links to it at the places where the app looks for it.

Standard library only, like the builder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from receiver.inside.launch import FILES, FIRST
from receiver.inside.public import make_readable

KEEPERS = (".gitkeep", ".keep", ".gitignore", ".htaccess", "index.html", "web.config", "README.md", ".dummy", "_dummy")
DATABASES = (".db", ".sqlite", ".sqlite3")


def make_up(place: str) -> None:
    """Make an empty directory where a link to the app's data will be, so that build steps can write there; the link
    replaces it."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(place) or "." if place.endswith(FILES) else place, exist_ok=True)  # noqa: PTH103, PTH120


def mount(storage: Sequence[Sequence[str]]) -> int:
    """Link more of the app's data into a finished slug; returns 1 if a file of the commit is in the way."""
    for data, place in storage:
        if os.path.islink(place):  # noqa: PTH114
            continue
        if os.path.lexists(place) and not is_kept_place(place):
            print(f"{place} is in the commit.", flush=True)
            return 1
        link_to_data(data, place)
    make_readable()
    return 0


def is_kept_place(place: str) -> bool:
    """Whether a place can become the app's data: a directory that holds only files that keep it in a commit or hidden
    from visitors, and databases and logs, which no push would change for an app that writes there; or a database
    itself."""
    if not os.path.isdir(place):  # noqa: PTH112
        return place.endswith(DATABASES)
    names = [name for _, _, files in os.walk(place) for name in files]
    return len(names) < 50 and all(name in KEEPERS or name.endswith((*DATABASES, ".log")) for name in names)


def link_to_data(data: str, place: str) -> None:
    """Make `place` of the slug a link to `data`, the app's. What the slug has there is moved aside: the launcher copies
    it into data that does not exist yet (launch.py)."""
    for above in reversed(Path(place).parents[:-1]):
        if above.is_symlink() or not above.is_dir():
            above.unlink(missing_ok=True)
            above.mkdir()
    if os.path.lexists(place):
        first = Path(FIRST, place)
        first.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place, first)  # noqa: PTH104
    os.symlink(data, place)  # noqa: PTH211
