"""Unit files on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from receiver.system import disk


def write(units: Path, files: Mapping[str, str] | Mapping[Path, str], lasts: disk.Lasts = disk.Lasts.WHOLE) -> bool:
    """Write files, units by their names; True if a file that systemd may have read before has changed."""
    changed = False
    for name, text in files.items():
        path = units / name
        try:
            before: bytes | None = path.read_bytes()
        except FileNotFoundError:
            before = None
        if before != text.encode():
            changed = changed or before is not None
            disk.write_atomically(path, text.encode(), 0o644, lasts=lasts)
    return changed
