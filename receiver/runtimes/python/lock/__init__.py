"""Lock files of other tools as requirements that uv installs: every package, pinned, with its hashes. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Locked:
    """`text` is a requirements file that is complete (install it with --no-deps); `hashed`: all of it has hashes."""

    text: str
    hashed: bool
