"""Makes an app's new data: a copy of what its commit has at a place of `storage`. Imported only when that is needed.

Not with cp(1): directories of a slug inherit the set-group-id bit; cp would set it, and the sandbox forbids that.
"""

from __future__ import annotations

import os
import shutil


def copy(source: str, target: str) -> None:
    """Copy a file or a directory to `target`, in one step; if another process has made it meanwhile, that one stays."""
    new = f"{target}.{os.getpid()}"
    try:
        if os.path.isdir(source) and not os.path.islink(source):  # noqa: PTH112, PTH114
            os.mkdir(new, 0o770)  # noqa: PTH102
            for above, directories, files in os.walk(source):
                below = new + above[len(source) :]
                for name in directories:
                    if not os.path.islink(f"{above}/{name}"):  # noqa: PTH114
                        os.mkdir(f"{below}/{name}", 0o770)  # noqa: PTH102
                for name in (*files, *(name for name in directories if os.path.islink(f"{above}/{name}"))):  # noqa: PTH114
                    one(f"{above}/{name}", f"{below}/{name}")
        else:
            one(source, new)
        if os.path.lexists(target):
            raise FileExistsError(target)
        os.rename(new, target)  # noqa: PTH104
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if os.path.lexists(new):
            os.unlink(new)  # noqa: PTH108
        if not os.path.lexists(target):
            raise


def one(source: str, target: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    if not os.path.islink(target) and os.access(source, os.X_OK):  # noqa: PTH114
        os.chmod(target, 0o770)  # noqa: PTH101
