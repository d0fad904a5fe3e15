"""Who may read what in a slug: the app's processes all of it, nginx the directories that it serves, nobody else
anything.

The builder calls this, as the user who owns the slug. Standard library only, like the builder.
"""

from __future__ import annotations

import os
import stat

PROXY_GROUP = "shipit-proxy"
INDEX = "index.html"
# Files at the top of a slug that describe the app and are no pages.
OURS = ("Procfile", "shipit.yml", "app.json")


def make_readable() -> None:
    """Let the processes read and execute all of the slug and write none of it, whatever modes a build step has set."""
    todo = ["."]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                # Without the set-group-id bit that directories inherit here: the sandbox forbids setting it.
                mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) & 0o777
                wanted = mode & ~0o027 | 0o040 | (mode & 0o100) >> 3
                if mode != wanted:
                    os.chmod(entry.path, wanted)  # noqa: PTH101
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)


def check_static(directory: str) -> int:
    """Returns 1, and prints why, if the directory that nginx should serve has no index page."""
    if os.path.isfile(f"{directory}/{INDEX}"):  # noqa: PTH113
        return 0
    print(f"There is no {directory}/{INDEX} after the build, and nginx is to serve {directory} (`static`).", flush=True)
    return 1


def check_assets(directory: str) -> int:
    """Returns 1, and prints why, if the directory is missing, or is reached through a link."""
    if os.path.isdir(directory) and os.path.realpath(directory) == os.path.join(os.getcwd(), directory):  # noqa: PTH112, PTH118, PTH109
        return 0
    print(f"There is no directory {directory} after the build, and nginx is to serve it (`static`).", flush=True)
    return 1


def show(directory: str) -> None:
    """Let the proxy read everything below a directory of the slug, except hidden files.

    So far only the slug's owner and group can enter the slug. From here on the proxy's group can, too, but it can read
    only what everybody may read, and this makes only that directory so.
    """
    let_proxy_in(".")
    around = directory.split("/")[:-1]
    for depth in range(len(around)):
        add_mode("/".join(around[: depth + 1]), 0o001)
    todo = [directory]
    while todo:
        place = todo.pop()
        if place != ".":
            add_mode(place, 0o005)
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_symlink() or (entry.name.startswith(".") and entry.name != ".well-known"):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif place != "." or entry.name not in OURS:
                    add_mode(entry.path, 0o004)


def add_mode(path: str, bits: int) -> None:
    mode = stat.S_IMODE(os.stat(path, follow_symlinks=False).st_mode) & 0o777  # noqa: PTH116
    os.chmod(path, mode | bits)  # noqa: PTH101


def let_proxy_in(path: str) -> None:
    """Let the group shipit-proxy pass through our directory to what it may read there (acl(5)).

    On a file system without access lists every user of the server may pass, and can then read what everybody may read.
    """
    import grp
    import struct

    owner, group, named, mask, other = 0x01, 0x04, 0x08, 0x10, 0x20
    nobody = 0xFFFFFFFF
    entries = ((owner, 7, nobody), (group, 5, nobody), (named, 1, grp.getgrnam(PROXY_GROUP).gr_gid),
               (mask, 5, nobody), (other, 0, nobody))  # fmt: skip
    text = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", text)
    except (OSError, KeyError) as error:
        print(
            f"(No access list for {path}: {error}. Users of this server can read the static directory, too.)",
            flush=True,
        )
        add_mode(path, 0o001)
