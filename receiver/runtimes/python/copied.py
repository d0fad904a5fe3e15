"""A copy of an environment for another release, so that a build installs only what has changed.

Only the standard library, and only its fast parts: the builder, which imports this, is started with -I -S.
"""

from __future__ import annotations

import os
from contextlib import suppress

CHUNK = 2**30


def copy(source: str, target: str) -> None:
    """Copy the environment `source` to `target`, both absolute, and make its scripts name the copy.

    No file is shared, except for blocks that the file system shares itself (copy_file_range(2)): a build must not be
    able to change an older release. Raises OSError if it cannot be copied, if it has an interpreter of its own release,
    or if its interpreter is another Python by now than the one that it was made for.
    """
    interpreter = os.path.basename(os.path.realpath(f"{source}/bin/python"))  # noqa: PTH119
    if not os.path.isdir(f"{source}/lib/{interpreter}"):  # noqa: PTH112
        raise OSError(0, "It was made for another Python.", source)
    top = os.path.dirname(source)  # noqa: PTH120
    copy_tree(source, target, top)
    for entry in os.scandir(f"{target}/bin"):
        if entry.is_file(follow_symlinks=False):
            rename_in(entry.path, source.encode(), target.encode())


def finish(source: str, target: str) -> None:
    """After all is installed in the copy: copy the bytecode of unchanged modules that belong to no package."""
    for packages in site_packages(target):
        old = source + packages[len(target) :]
        os.makedirs(f"{packages}/__pycache__", exist_ok=True)  # noqa: PTH103
        for entry in listed(f"{old}/__pycache__"):
            module, to = entry.name.partition(".")[0] + ".py", f"{packages}/__pycache__/{entry.name}"
            with suppress(FileNotFoundError, FileExistsError):
                then, now = os.stat(f"{old}/{module}"), os.stat(f"{packages}/{module}")  # noqa: PTH116
                if (then.st_mtime_ns, then.st_size) == (now.st_mtime_ns, now.st_size):
                    copy_file(entry, to)


def alive(environment: str) -> bool:
    """Whether its interpreter exists and still has the version of its packages' directory; True without interpreter."""
    python = f"{environment}/bin/python"
    if not os.path.lexists(python):
        return True
    version = os.path.basename(os.path.realpath(python))  # noqa: PTH119
    return os.access(python, os.X_OK) and os.path.isdir(f"{environment}/lib/{version}")  # noqa: PTH112


def settle(environment: str) -> None:
    """Make an environment link to the system's interpreter by its exact version: after a system upgrade the plain name
    leads to another Python, which finds none of the packages."""
    python = f"{environment}/bin/python"
    if os.path.islink(python) and os.readlink(python).startswith("/usr/bin/"):  # noqa: PTH114, PTH115
        exact = os.path.realpath(python)
        os.unlink(python)  # noqa: PTH108
        os.symlink(exact, python)  # noqa: PTH211


def contents(environment: str) -> set[str]:
    """The name and version of every package that is installed there (PyPA, "Recording installed projects")."""
    inside = (entry.name for packages in site_packages(environment) for entry in os.scandir(packages))
    return {name for name in inside if name.endswith(".dist-info")}


def site_packages(environment: str) -> list[str]:
    return [f"{python.path}/site-packages" for python in os.scandir(f"{environment}/lib")]


def listed(directory: str) -> list[os.DirEntry[str]]:
    with suppress(FileNotFoundError):
        return list(os.scandir(directory))
    return []


def copy_tree(source: str, target: str, top: str) -> None:
    """One directory and all below it: modes within the umask, times kept (bytecode is checked against them)."""
    os.mkdir(target)  # noqa: PTH102
    for entry in os.scandir(source):
        to = f"{target}/{entry.name}"
        if entry.is_symlink():
            link = os.readlink(entry.path)  # noqa: PTH115
            if link.startswith(f"{top}/"):
                raise OSError(0, "It belongs to a release that will be pruned.", entry.path)
            os.symlink(link, to)  # noqa: PTH211
        elif entry.name == "__pycache__" and source.endswith("/site-packages"):
            # uv removes a package's bytecode with the package, but not that of a module without one. If such bytecode
            # has the size and second of a new module, Python would use it for that module. See finish.
            continue
        elif entry.is_dir(follow_symlinks=False):
            copy_tree(entry.path, to, top)
        else:
            copy_file(entry, to)


def copy_file(entry: os.DirEntry[str], to: str) -> None:
    stat = entry.stat(follow_symlinks=False)
    # Without the set-user-id and set-group-id bits: the sandbox forbids setting them.
    out = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.st_mode & 0o777)
    into = os.open(entry.path, os.O_RDONLY)
    try:
        while os.copy_file_range(into, out, CHUNK):
            pass
        os.utime(out, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    finally:
        os.close(into)
        os.close(out)


def rename_in(path: str, old: bytes, new: bytes) -> None:
    """Replace the old environment's path by the new one in a script; binary programs are left unchanged."""
    with open(path, "r+b") as file:  # noqa: PTH123
        if file.read(4) == b"\x7fELF":
            return
        file.seek(0)
        text = file.read()
        if old in text:
            file.seek(0)
            file.truncate()
            file.write(text.replace(old, new))
