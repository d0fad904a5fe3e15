"""How much files may arrive at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from receiver.errors import Rejected


class Limits(NamedTuple):
    """`packed`: bytes as they arrive; `size`: bytes of all files; `files`: how many; `ratio`: `size` to `packed`.
    `layers` tells those of images that the server has, by their digests unpacked: they need not be sent."""

    packed: int
    size: int
    files: int
    ratio: int = 200
    layers: Callable[[], Collection[str]] = tuple


def too_large(what: str, limit: int) -> Rejected:
    """That more arrives than the server's `max_push` lets in; `limit` is in bytes."""
    return Rejected(
        f"{what} is larger than {limit // 2**20} MiB.",
        holds="Nothing was changed.",
        hint="The server's administrator raises max_push in /etc/shipit/shipit.yml.",
    )
