"""Hosts on which install.sh has already run: one layer per state of the product's files."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from .base import CACHE, REPO, LabError, Result, locked, run
from .host import Box, Host
from .machine import PATH, Machine
from .tree import base_tree, digest, entry, remove_tree

NOT_INSTALLED = ("tests/", "docs/", "benchmarks/", ".ci/")
"""What may change without making another installation."""


def admin_key() -> Path:
    """The private key of the administrator of every installed host; its public half lies beside it."""
    path = CACHE / "keys" / "admin"
    with locked(CACHE / "keys" / "lock"):
        if not path.with_suffix(".pub").exists():
            path.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "admin@lab", "-f", path])
    return path


def git(*words: str, check: bool = True) -> Result:
    """git on a clone that may belong to another user than root, who runs the lab."""
    trusting = CACHE / "gitconfig"
    if not trusting.exists():
        trusting.write_text("[safe]\n\tdirectory = *\n")
    return run(["git", *words], env={"PATH": PATH, "GIT_CONFIG_GLOBAL": str(trusting)}, check=check)


def source_files(top: Path) -> list[Path]:
    """Every file of a clone, as git sees it: what is committed or new, not what is ignored."""
    words = ["-C", str(top), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = git(*words).out.split("\0")
    return sorted({top / name for name in names if name and (top / name).is_file()})


def clone() -> Path:
    """A clone of this repository with its files as they are in the work tree now."""
    with locked(CACHE / "clone.lock"):
        for _ in range(3):
            # Somebody may be writing in the work tree: then what was listed is gone when it is read.
            with suppress(FileNotFoundError):
                return clone_now()
        return clone_now()


def clone_now() -> Path:
    files = source_files(REPO)
    head = git("-C", str(REPO), "rev-parse", "HEAD", check=False).out
    kept = CACHE / "clones" / digest(head, content_key(REPO, files))
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    for old in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-30]:
        remove_tree(old)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        new = Path(scratch) / "shipit"
        git("clone", "-q", "--no-hardlinks", str(REPO), str(new))
        for path in source_files(new):
            path.unlink()
        for path in files:
            copy = new / path.relative_to(REPO)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy, follow_symlinks=False)
        new.rename(kept)
    return kept


def installed_files(top: Path) -> list[Path]:
    """The files of a clone that make an installation what it is."""
    return [path for path in source_files(top) if not str(path.relative_to(top)).startswith(NOT_INSTALLED)]


def content_key(top: Path, files: list[Path]) -> str:
    parts: list[str | bytes] = []
    for path in files:
        parts += [str(path.relative_to(top)), oct(path.stat().st_mode), path.read_bytes()]
    return digest(*parts)


def installed_tree(suite: str, *words: str, box: bool = False) -> Path:
    """A tree of this suite after `./install.sh --key /root/admin.pub WORDS`; made when the product has changed."""
    base = base_tree(suite)
    source = clone()
    files = installed_files(source)
    if source / "install.sh" not in files:
        raise LabError("there is no install.sh to install with")
    public = admin_key().with_suffix(".pub").read_text()
    key = digest(base.name, content_key(source, files), public, *words)

    def make(new: Path) -> None:
        kind: type[Machine] = Box if box else Host
        with kind.boot(base, "shipit") as machine:
            machine.put(source, "/root/shipit")
            machine.install(*words)
            machine.keep_archives()
            keep_as_layer(machine, new)

    return entry(f"{'box' if box else 'host'}-{suite}", key, make)


def keep_as_layer(machine: Machine, new: Path) -> None:
    """What a machine has changed becomes a layer on its tree. The machine is over after this."""
    if isinstance(machine, Host | Box):
        machine.power_off()
    run(["umount", machine.root])
    machine.upper.rename(new / "root")
    (new / "below").write_text(machine.tree.name + "\n")
