"""The app's data in a slug: links that the builder makes at the places where the app looks for it.

Only the standard library, as the builder itself.
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
    """A directory for what a build's steps write where the app's data will be seen; it goes when they are done."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(place) or "." if place.endswith(FILES) else place, exist_ok=True)  # noqa: PTH103, PTH120


def mount(storage: Sequence[Sequence[str]]) -> int:
    """Link more of the app's data into a slug that is built; 1 when something is in the way that pushes may change."""
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
    """Whether a directory has nothing in it but what keeps it in a commit, or from visitors, and what no push would ever
    change for an app that writes there: databases and logs. Or is a database itself."""
    if not os.path.isdir(place):  # noqa: PTH112
        return place.endswith(DATABASES)
    names = [name for _, _, files in os.walk(place) for name in files]
    return len(names) < 50 and all(name in KEEPERS or name.endswith((*DATABASES, ".log")) for name in names)


def link_to_data(data: str, place: str) -> None:
    """Have the processes see what is at `data`, which is the app's, at `place` of the slug. What the slug has there is
    what an app without that data begins with (launch.py)."""
    for above in reversed(Path(place).parents[:-1]):
        if above.is_symlink() or not above.is_dir():
            above.unlink(missing_ok=True)
            above.mkdir()
    if os.path.lexists(place):
        first = Path(FIRST, place)
        first.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place, first)  # noqa: PTH104
    os.symlink(data, place)  # noqa: PTH211
