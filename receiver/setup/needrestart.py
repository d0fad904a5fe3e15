"""Settings for needrestart(1), which Ubuntu has by default: it must not restart apps or nginx after an upgrade of
libraries, since that would lose requests.

The files are written even where needrestart is missing: it may be installed later.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from receiver.paths import Layout, share
from receiver.setup.report import Step
from receiver.system import disk


def files(layout: Layout) -> dict[str, Path]:
    """Where each of our files belongs, by its name."""
    etc = layout.root / "etc/needrestart"
    return {"shipit.conf": etc / "conf.d/shipit.conf", "nginx.service": etc / "restart.d/nginx.service"}


def install(layout: Layout, step: Step) -> None:
    changed = False
    for name, path in files(layout).items():
        data = (share("templates") / "needrestart" / name).read_bytes()
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            disk.write_atomically(path, data, 0o755 if name.endswith(".service") else 0o644)
            changed = True
    if changed:
        step.did("needrestart leaves apps and nginx to shipit")


def remove(layout: Layout) -> None:
    """Remove the directories, too, if needrestart has nothing in them."""
    for path in files(layout).values():
        disk.remove_file(path)
        for directory in path.parents[:2]:
            with suppress(OSError):
                directory.rmdir()
