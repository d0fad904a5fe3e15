"""Bare Debian trees, made once by mmdebstrap and kept; and how kept trees lie on one another.

An entry of the cache is a directory NAME/ with `root/` (a whole tree, or one overlay layer) and, for a layer,
a file `below` naming the entry it lies on. An entry never changes once it has its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .base import CACHE, LabError, locked, run, try_lock

TREES = CACHE / "trees"
SUITES = ("bookworm", "trixie")
SUITE = os.environ.get("SHIPIT_TEST_SUITE") or SUITES[0]
"""Of the machines of tests that do not say which."""
PACKAGES = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "ca-certificates", "iproute2")
"""What the smallest server has. No ssh, git, nginx or Python: install.sh has to bring them."""
RECIPE = 3
"""Raise it when this module makes a tree differently."""
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT")
KEPT_LAYERS = 4


def base_tree(suite: str) -> Path:
    """A bare Debian of this suite, from the cache or made now (about 25 s)."""
    if suite not in SUITES:
        raise LabError(f"no such suite: {suite}; the lab knows {', '.join(SUITES)}")
    recipe = {
        "recipe": RECIPE,
        "suite": suite,
        "packages": PACKAGES,
        "ca": hashlib.sha256(CA_BUNDLE.read_bytes()).hexdigest() if CA_BUNDLE.exists() else None,
        "environment": environment(),
    }
    return entry(f"base-{suite}", digest(json.dumps(recipe, sort_keys=True)), lambda new: make_base(suite, new))


def environment() -> dict[str, str]:
    """The CA variables of this machine, if it has any: then its hosts need them as well."""
    return {name: str(CA_BUNDLE) for name in CA_VARIABLES if os.environ.get(name)}


def make_base(suite: str, new: Path) -> None:
    root = new / "root"
    run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, root],
        timeout=600,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **proxies()},
    )
    (root / "etc/machine-id").unlink(missing_ok=True)
    trust_what_this_machine_trusts(root)


def proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def trust_what_this_machine_trusts(root: Path) -> None:
    """Certificates that this machine trusts beyond Debian's own go where update-ca-certificates keeps them."""
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    known = set(certificates(bundle.read_text()))
    extra = [pem for pem in certificates(CA_BUNDLE.read_text()) if pem not in known] if CA_BUNDLE.exists() else []
    for number, pem in enumerate(extra):
        path = root / f"usr/local/share/ca-certificates/lab-{number}.crt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pem + "\n")
    if extra:
        run(["chroot", root, "update-ca-certificates"], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    named = environment()
    if not named:
        return
    with (root / "etc/environment").open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in named.items())
    manager = root / "etc/systemd/system.conf.d/lab.conf"
    manager.parent.mkdir(parents=True, exist_ok=True)
    manager.write_text(
        "[Manager]\nDefaultEnvironment=" + " ".join(f"{name}={value}" for name, value in named.items()) + "\n"
    )
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {CA_BUNDLE}\n")
    settings = root / "etc/uv/uv.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("native-tls = true\n")


def certificates(text: str) -> list[str]:
    found = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL)
    return ["\n".join(line.strip() for line in pem.splitlines()) for pem in found]


def digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else part)
        whole.update(b"\0")
    return whole.hexdigest()[:16]


def entry(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The cache's entry of this kind and key; made beside and renamed, so that it is whole or absent."""
    path = TREES / f"{kind}-{key}"
    if path.is_dir():
        os.utime(path)
        return path
    with locked(TREES / f"{kind}.making"):
        if path.is_dir():
            return path
        new = path.with_name(f"{path.name}.new")
        remove_tree(new)
        new.mkdir(parents=True)
        try:
            make(new)
        except BaseException:
            remove_tree(new)
            raise
        run(["sync", "-f", new])
        new.rename(path)
        prune(kind)
    return path


def prune(kind: str) -> None:
    """Forget the oldest entries of a kind that no running host uses and no other entry lies on."""
    entries = [path for path in TREES.glob(f"{kind}-*") if path.is_dir() and path.suffix != ".new"]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    below = {mark.read_text().strip() for mark in TREES.glob("*/below")}
    for path in entries[KEPT_LAYERS:]:
        if path.name in below or time.time() - path.stat().st_mtime < 600:
            continue
        handle = try_lock(use_lock(path))
        if handle is None:
            continue
        remove_tree(path)
        use_lock(path).unlink(missing_ok=True)
        os.close(handle)


def remove_tree(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def use_lock(tree: Path) -> Path:
    return TREES / f"{tree.name}.use"


@contextmanager
def in_use(tree: Path) -> Iterator[None]:
    """While this is held, no run forgets the tree."""
    with locked(use_lock(tree), shared=True):
        yield


def layers(tree: Path) -> list[Path]:
    """The directories that make up a tree, topmost first."""
    found = [tree / "root"]
    while (tree / "below").exists():
        tree = tree.parent / (tree / "below").read_text().strip()
        found.append(tree / "root")
    return found
