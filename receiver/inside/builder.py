"""The builder: from a tar stream to a slug. Runs as build-APP in a sandbox that can write only its slug and its cache.

    builder APP N < source.tar

Reads releases/vN/build.json (story/build.py, encode_plan) and, as the credential `config`, the config vars that the app
asked for at build time. Works in the slug, its working directory. Its exit code is 0, or that of the step that failed.
`--root=DIR` puts all paths below DIR (tests). Standard library only: started with -I -S.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from receiver.inside.public import check_assets, check_static, make_readable, show
from receiver.inside.storage import link_to_data, make_up, mount

if False:  # typing is slow to import
    from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The group is that of the app's processes, which may read and execute; others may do nothing.
UMASK = 0o027
# This file marks a directory that build commands have written into: the next release gets a copy of it, not a link.
WRITTEN = ".written-by-the-build"
TELL_FROM = 0.5  # seconds; the time of shorter steps is not printed


def main(argv: list[str]) -> None:
    """Build the slug in the working directory; always ends by SystemExit with the exit code."""
    root = next((word.partition("=")[2] for word in argv if word.startswith("--root=")), "")
    app, number = [word for word in argv if not word.startswith("--")]
    home = Path(f"{root}/var/lib/shipit/apps/{app}")
    os.umask(UMASK)
    # systemd counts a program that one of these signals killed as successful; so end with an exit code.
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(asked, give_up)
    plan = json.loads((home / f"releases/v{number}/build.json").read_bytes())
    if "--data" in argv:
        raise SystemExit(mount(plan["storage"]))
    base = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(home / "cache"), **plan["environment"], **wanted_config()}
    code = unpack(plan["root"])
    # A build must not read or write the app's own data: programs that look for their data directory find an empty one.
    scratch = Path(".shipit-data").absolute()
    scratch.mkdir(exist_ok=True)
    base["DATA_DIR"] = str(scratch)
    places = [place for _, place in plan["storage"]]
    made_up = [place for place in places if not os.path.lexists(place)]
    for place in made_up:
        if place not in plan.get("absent", []):
            make_up(place)
    for made in plan["made"]:
        code = code or make_directory(made, base)
    code = code or run_following(plan, base)
    if plan["following"] or not all(made["link"] for made in plan["made"]):
        bound_cache(home / "cache", plan["cache"])
    subprocess.call(["rm", "-rf", "--", scratch])
    if code == 0 and plan["static"]:
        code = check_static(plan["static"])
    # Plans of an older worker (during an upgrade) have no assets.
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
    """Unpack what is below `root` in standard input ("": all); all files become ours, whoever owned them."""
    options = ["--no-same-owner", "--no-same-permissions", "--no-acls", "--no-xattrs"]
    if root:
        options += [f"--strip-components={len(Path(root).parts)}", "--", root]
    return verdict(subprocess.call(["tar", "--extract", "--file=-", *options]))


def make_directory(made: Any, base: dict[str, str]) -> int:
    """Make a directory that releases share: a link to an earlier release's, a copy of one that is completed, or a new
    one; returns the exit code of its steps."""
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


def run_following(plan: Any, base: dict[str, str]) -> int:
    """Run the build commands after the directories are made. Mark each directory of this release that they write
    into."""
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
    """Path → (time of change, size) of all files; without bytecode, which programs write as they run."""
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
    """Complete a copied directory: install what is missing; if that fails or changes what was there, install all
    anew."""
    if made["adding"]:
        before = copier.contents(target)
        code = run_steps(made["adding"], base)
        if code or before <= copier.contents(target):
            return code
        # A package was replaced: packages that only the old one needed would stay.
        print("Other packages changed with it; once more for all:", flush=True)
    return run_steps(made["seeded"], base)


def bound_cache(cache: Path, limit: int) -> None:
    """Empty the cache if it is larger than `limit` bytes: the next build downloads what it needs again.

    The whole cache, because a package manager may take one with missing parts for damaged.
    """
    # The user waits for this: du counts 10,000 files in 25 ms, a loop in Python in 42.
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
    """Run one step to its end; print its time if it was long."""
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
    """Which of the sandbox's limits the build has hit, by the kernel's counters; empty without a control group."""
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
    """The exit code; for a program that a signal killed 128 + the signal, as shells do."""
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main(sys.argv[1:])
