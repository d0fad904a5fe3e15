"""Limits for files that arrive."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from receiver.errors import Rejected


class Limits(NamedTuple):
    """`packed`: bytes as they arrive; `size`: bytes of all files; `files`: their number; `ratio`: of `size` to
    `packed`. `layers`: the digests of unpacked image layers that the server has: they need not be sent."""

    packed: int
    size: int
    files: int
    ratio: int = 200
    layers: Callable[[], Collection[str]] = tuple


def too_large(what: str, limit: int) -> Rejected:
    """The failure for more than the server's `max_push`; `limit` is in bytes."""
    return Rejected(
        f"{what} is larger than {limit // 2**20} MiB.",
        holds="Nothing was changed.",
        hint="The server's administrator raises max_push in /etc/shipit/shipit.yml.",
    )
