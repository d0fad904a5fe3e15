"""Lock files of other tools as requirements that uv installs: every package, pinned, with its hashes. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Locked:
    """`text` is a complete requirements file (install it with --no-deps); `hashed`: every line has a hash."""

    text: str
    hashed: bool
