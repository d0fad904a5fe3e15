"""How much files may arrive at once."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """`packed`: bytes as they arrive; `size`: bytes of all files; `files`: how many; `ratio`: `size` to `packed`."""

    packed: int
    size: int
    files: int
    ratio: int = 200
