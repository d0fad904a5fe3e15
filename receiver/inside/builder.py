"""The builder: from a tar stream to a slug. Runs as build-APP in a cage that may write its slug and its cache only.

    builder APP N < source.tar

Reads releases/vN/build.json (story/build.py, encode_plan) and, as the credential `config`, the config vars that the app
asked for at build time. Works in the slug, its working directory. Its exit code is the verdict: 0, or that of
the step that failed. `--root=DIR` puts all paths below DIR (tests). Only the standard library: started with -I -S.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from receiver.inside.launch import FILES, FIRST

if False:  # typing is slow to import
    from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Group: what the processes run as, which reads and executes. Others: nothing.
UMASK = 0o027
# Lies in a directory into which the steps behind it have written: the next release gets a copy of it and no link.
WRITTEN = ".written-by-the-build"
PROXY_GROUP = "shipit-proxy"
INDEX = "index.html"
# Files at the top of a slug that tell of the app and are no pages.
OURS = ("Procfile", "shipit.yml", "app.json")
KEEPERS = (".gitkeep", ".keep", ".gitignore", ".htaccess", "index.html", "web.config", "README.md", ".dummy", "_dummy")
DATABASES = (".db", ".sqlite", ".sqlite3")
TELL_FROM = 0.5  # seconds; shorter steps need no timing


def main(argv: list[str]) -> None:
    """Build the slug in the working directory; always ends by SystemExit with the verdict."""
    root = next((word.partition("=")[2] for word in argv if word.startswith("--root=")), "")
    app, number = [word for word in argv if not word.startswith("--")]
    home = Path(f"{root}/var/lib/shipit/apps/{app}")
    os.umask(UMASK)
    # systemd takes a program that one of these killed for one that succeeded; a verdict is an exit code.
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(asked, give_up)
    plan = json.loads((home / f"releases/v{number}/build.json").read_bytes())
    if "--data" in argv:
        raise SystemExit(mount(plan["storage"]))
    base = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(home / "cache"), **plan["environment"], **wanted_config()}
    code = unpack(plan["root"])
    # The app's own data is not a build's to read or write: settings that look for their directory find an empty one.
    scratch = Path(".shipit-data").absolute()
    scratch.mkdir(exist_ok=True)
    base["DATA_DIR"] = str(scratch)
    places = [place for _, place in plan["storage"]]
    made_up = [place for place in places if not os.path.lexists(place)]
    for place in made_up:
        make_up(place)
    for made in plan["made"]:
        code = code or make_directory(made, base)
    code = code or run_following(plan, base)
    if plan["following"] or not all(made["link"] for made in plan["made"]):
        bound_cache(home / "cache", plan["cache"])
    subprocess.call(["rm", "-rf", "--", scratch])
    if code == 0 and plan["static"]:
        code = check_static(plan["static"])
    # A worker that an upgrade met half way knows of no assets.
    assets = plan.get("assets", [])
    code = code or max([0, *map(check_assets, assets)])
    if code == 0:
        for place in made_up:
            subprocess.call(["rm", "-rf", "--", place])
        for data, place in plan["storage"]:
            link_to_data(data, place)
        make_readable()
        for directory in [plan["static"], *assets]:
            if directory:
                show(directory)
    else:
        for line in limits_reached():
            print(line, flush=True)
    raise SystemExit(code)


def give_up(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def wanted_config() -> dict[str, str]:
    """The config vars that the manifest names as needed by the build."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if not credentials:
        return {}
    config: dict[str, str] = json.loads((Path(credentials) / "config").read_bytes())
    return config


def unpack(root: str) -> int:
    """Unpack what lies below `root` of standard input here ("": all); whoever owned it, it is ours now."""
    options = ["--no-same-owner", "--no-same-permissions", "--no-acls", "--no-xattrs"]
    if root:
        options += [f"--strip-components={len(Path(root).parts)}", "--", root]
    return verdict(subprocess.call(["tar", "--extract", "--file=-", *options]))


def make_directory(made: Any, base: dict[str, str]) -> int:
    """Make a directory that releases share: a link to an earlier release's, or from a copy of one, or of nothing;
    returns the exit code of its steps."""
    copier = importlib.import_module(made["copier"]) if made["copier"] else None
    target = os.path.abspath(made["name"])  # noqa: PTH100
    if made["link"] and (not copier or (copier.alive(made["link"]) and not written(made["link"]))):
        os.symlink(made["link"], made["name"])  # noqa: PTH211
        return 0
    seed = made["seed"] or made["link"]
    if seed and copier:
        try:
            copier.copy(seed, target)
            code = complete(made, copier, target, base)
            if code == 0:
                copier.finish(seed, target)
                copier.settle(target)
        except OSError as error:
            print(f"{error.filename}: {error.strerror}", flush=True)
            code = 1
        if code == 0:
            return 0
        print(f"This was from a copy of the last release's {made['name']}. Again, from nothing:", flush=True)
        subprocess.call(["rm", "-rf", "--", made["name"]])
    code = run_steps(made["steps"], base)
    if copier and code == 0:
        copier.settle(target)
    return code


def make_up(place: str) -> None:
    """A directory for what a build's steps write where the app's data will be seen; it goes when they are done."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(place) or "." if place.endswith(FILES) else place, exist_ok=True)  # noqa: PTH103, PTH120


def mount(storage: Sequence[Sequence[str]]) -> int:
    """Link more of the app's data into a slug that is built; 1 when something is in the way that pushes may change."""
    for data, place in storage:
        if os.path.islink(place):  # noqa: PTH114
            continue
        if os.path.lexists(place) and not is_kept_place(place):
            print(f"{place} is in the commit.", flush=True)
            return 1
        link_to_data(data, place)
    make_readable()
    return 0


def is_kept_place(place: str) -> bool:
    """Whether a directory has nothing in it but what keeps it in a commit, or from visitors, and what no push would ever
    change for an app that writes there: databases and logs. Or is a database itself."""
    if not os.path.isdir(place):  # noqa: PTH112
        return place.endswith(DATABASES)
    names = [name for _, _, files in os.walk(place) for name in files]
    return len(names) < 50 and all(name in KEEPERS or name.endswith((*DATABASES, ".log")) for name in names)


def link_to_data(data: str, place: str) -> None:
    """Have the processes see what is at `data`, which is the app's, at `place` of the slug. What the slug has there is
    what an app without that data begins with (launch.py)."""
    for above in reversed(Path(place).parents[:-1]):
        if above.is_symlink() or not above.is_dir():
            above.unlink(missing_ok=True)
            above.mkdir()
    if os.path.lexists(place):
        first = Path(FIRST, place)
        first.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place, first)  # noqa: PTH104
    os.symlink(data, place)  # noqa: PTH211


def run_following(plan: Any, base: dict[str, str]) -> int:
    """The steps behind the directories. When they write into one of this release's own, that is noted in it."""
    mine = [made["name"] for made in plan["made"] if made["copier"] and not os.path.islink(made["name"])]  # noqa: PTH114
    if not plan["following"] or not mine:
        return run_steps(plan["following"], base)
    before = [files_below(name) for name in mine]
    code = run_steps(plan["following"], base)
    for name, files in zip(mine, before, strict=True):
        if code == 0 and files_below(name) != files:
            Path(name, WRITTEN).touch()
    return code


def written(directory: str) -> bool:
    return os.path.exists(f"{directory}/{WRITTEN}")  # noqa: PTH110


def files_below(top: str) -> dict[str, tuple[int, int]]:
    """Path → when it was written, and its size, of all files; without bytecode, which programs write as they run."""
    found = {}
    todo = [top] if os.path.isdir(top) else []  # noqa: PTH112
    while todo:
        for entry in os.scandir(todo.pop()):
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    todo.append(entry.path)
            else:
                known = entry.stat(follow_symlinks=False)
                found[entry.path] = known.st_mtime_ns, known.st_size
    return found


def complete(made: Any, copier: Any, target: str, base: dict[str, str]) -> int:
    """Make a copy what it should be: add to it, or, when that is not enough or has changed what was there, all of it."""
    if made["adding"]:
        before = copier.contents(target)
        code = run_steps(made["adding"], base)
        if code or before <= copier.contents(target):
            return code
        # Something was replaced: what only that needed would stay.
        print("Other packages changed with it; once more for all:", flush=True)
    return run_steps(made["seeded"], base)


def bound_cache(cache: Path, limit: int) -> None:
    """Empty the cache once it is larger than `limit` bytes: the next build fetches what it needs again.

    Whole, because what a package manager keeps is a whole: a part that is missing may be taken for one that is broken.
    """
    # Somebody waits for this: du counts 10,000 files in 25 ms, where a loop of ours takes 42.
    told = subprocess.run(["du", "-sx", "--block-size=1", "--", cache], stdout=subprocess.PIPE, check=False).stdout
    size = int(told.split()[0]) if told else 0
    if size > limit:
        print(f"The build cache had {size // 2**20} MiB, more than `cache` in the server's settings; it was emptied.")
        for name in os.listdir(cache):  # noqa: PTH208
            subprocess.call(["rm", "-rf", "--", cache / name])


def run_steps(steps: Any, base: dict[str, str]) -> int:
    """Run the steps until one fails; returns its exit code, or 0."""
    for step in steps:
        if code := run_step(step, base):
            return code
    return 0


def run_step(step: Any, base: dict[str, str]) -> int:
    """Run one step to its end and tell how long it took if that was long."""
    print(step["title"], flush=True)
    began = time.monotonic()
    try:
        code = verdict(subprocess.call(step["argv"], env={**base, **step["environment"]}, stdin=subprocess.DEVNULL))
    except OSError as error:
        print(f"{step['argv'][0]}: {error.strerror}", flush=True)
        return 127
    seconds = time.monotonic() - began
    if seconds > TELL_FROM:
        print(f"({seconds:.1f} s)", flush=True)
    return code


def limits_reached() -> list[str]:
    """Which limits of the cage the build ran into, as the kernel has counted; nothing where no control group tells."""
    told = []
    if counted("pids", "pids.events", "max"):
        told.append(
            "It wanted more processes and threads than a build may have (build_tasks in the server's settings)."
        )
    if counted("memory", "memory.events", "oom_kill") or counted("memory", "memory.oom_control", "oom_kill"):
        told.append("It wanted more memory than a build may have (build_memory in the server's settings).")
    return told


def counted(controller: str, file: str, event: str) -> int:
    """A counter of this process's control group, of version 1 or 2 (cgroups(7)); 0 when it is not there."""
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", controller):
                path = Path("/sys/fs/cgroup", controllers, group.lstrip("/"), file)
                if path.exists():
                    return int(dict(row.split() for row in path.read_text().splitlines())[event])
    except (OSError, ValueError, KeyError):
        return 0
    return 0


def verdict(code: int) -> int:
    """128 + the signal for a program that one has killed, as a shell reports it."""
    return code if code >= 0 else 128 - code


def make_readable() -> None:
    """The processes can read and execute all of the slug and write none of it, whatever modes a step has set."""
    todo = ["."]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                # Without the set-group-id bit that directories inherit here: the cage forbids asking for it.
                mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) & 0o777
                wanted = mode & ~0o027 | 0o040 | (mode & 0o100) >> 3
                if mode != wanted:
                    os.chmod(entry.path, wanted)  # noqa: PTH101
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)


def check_static(directory: str) -> int:
    """1, with the reason told, when there is nothing to serve in the directory that nginx shall serve."""
    if os.path.isfile(f"{directory}/{INDEX}"):  # noqa: PTH113
        return 0
    print(f"There is no {directory}/{INDEX} after the build, and nginx is to serve {directory} (`static`).", flush=True)
    return 1


def check_assets(directory: str) -> int:
    """1, with the reason told, when the directory is not there, or a link leads to it."""
    if os.path.isdir(directory) and os.path.realpath(directory) == os.path.join(os.getcwd(), directory):  # noqa: PTH112, PTH118, PTH109
        return 0
    print(f"There is no directory {directory} after the build, and nginx is to serve it (`static`).", flush=True)
    return 1


def show(directory: str) -> None:
    """Let the proxy read all below a directory of the slug but what is hidden.

    Nobody but the slug's owner and group gets into the slug; the proxy's group does from here on, but sees no more of it
    than what everybody may read, which is what this makes of that directory.
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
    """Let the group shipit-proxy pass through our directory, to what it is allowed to read there (acl(5)).

    On a file system without access lists everybody on the server may pass, who then can read what all the world can.
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


if __name__ == "__main__":
    main(sys.argv[1:])
