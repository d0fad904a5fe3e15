"""The machine's own Python, by its exact name: after a system upgrade `python3` is another version."""

from __future__ import annotations

import os
import re
from pathlib import Path

from receiver.runtimes.base import Trouble

SYSTEM = Path("/usr/bin/python3")


def trouble(slug: Path) -> Trouble | None:
    """What is wrong with the interpreter of a slug's environment, or None."""
    python = slug / ".venv/bin/python"
    if not python.is_symlink():
        return None
    exact = Path(os.path.realpath(python))
    # The build made this link, so its text is untrusted.
    shown = exact.name if re.fullmatch(r"python[0-9.]+", exact.name) else "a Python of its own"
    if not exact.exists():
        return Trouble(f"was built with {shown}, which is gone", dead=True)
    if not (slug / ".venv/lib" / exact.name).is_dir():
        return Trouble(f"was built for another Python than {shown}", dead=True)
    if exact.parent == SYSTEM.parent and exact != SYSTEM.resolve():
        return Trouble(f"runs on {shown}, for which the system brings no more updates")
    return None


def system_python() -> str:
    """`/usr/bin/python3.11`, if that is what `python3` is now."""
    return str(SYSTEM.resolve())
