"""How much files may arrive at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple


class Limits(NamedTuple):
    """`packed`: bytes as they arrive; `size`: bytes of all files; `files`: how many; `ratio`: `size` to `packed`.
    `layers` tells those of images that the server has, by their digests unpacked: they need not be sent."""

    packed: int
    size: int
    files: int
    ratio: int = 200
    layers: Callable[[], Collection[str]] = tuple
