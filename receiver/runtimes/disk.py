"""A virtual machine's disk that was sent: its pointer is the tree (sources/disk.py), and qemu runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from receiver.errors import as_root
from receiver.inside.diskimage import INSTALL
from receiver.manifest import Problems, Pushed
from receiver.manifest.command import Server
from receiver.model import WEB, CheckKind
from receiver.names import is_digest
from receiver.paths import DISK, PYTHON
from receiver.runtimes.base import BuildPlan, Evidence, Made, Part, Project, Runtime, Slug, Step, Trouble

POINTER = "shipit-disk.json"  # in the commit; names the disk
QEMU = Path("/usr/bin/qemu-system-x86_64")
BOOT = "BOOT"  # the command of web: boot the machine
# Seconds until a machine must answer: without KVM, Debian needs most of a minute.
PATIENCE = 300


class Disk(Runtime):
    """One process, `web`, which is the machine."""

    name = "disk"
    makes = (".disk",)
    reads = (POINTER,)

    def finds(self, pushed: Pushed) -> Evidence | None:
        return Evidence(POINTER) if POINTER in pushed.tree.files() else None

    def server(self, command: str, pushed: Pushed) -> Server | None:
        return Server("the machine", only_port=True, patience=PATIENCE) if self.finds(pushed) else None

    def check(self, pushed: Pushed, problems: Problems) -> None:
        if not _pointer(pushed.tree.read(POINTER)):
            problems.add(POINTER, "This names no disk.", "Send the disk itself: ssh HOST deploy APP - < DISK")
        lines = pushed.procfile
        if not lines or set(lines.processes) != {WEB} or lines.processes[WEB].command != BOOT or lines.release:
            problems.add("Procfile", f"A virtual machine is one process, `web: {BOOT}`.", "Leave the Procfile out.")
        if pushed.settings.storage:
            problems.add("shipit.yml", "A virtual machine sees no directory of the server (storage).",
                         "It can have a disk that outlives releases: vm: {data: 20G}")  # fmt: skip
        settings = pushed.settings.processes.get(WEB)
        if settings and settings.check.get("kind") in (CheckKind.COMMAND, CheckKind.NOTIFY):
            problems.add(settings.check_where, "Nothing of the server runs in a virtual machine.",
                         "Ask it over HTTP (path) or by a connection (tcp).")  # fmt: skip

    def trouble(self, slug: Path) -> Trouble | None:
        if QEMU.exists() or not os.path.lexists(slug / ".disk"):
            return None
        return Trouble(f"needs {QEMU}, which is not there", dead=True, hint=as_root(f"{INSTALL} qemu-system-x86"))

    def parts(self, slug: Slug) -> Iterator[Part]:
        if found := _pointer(slug.read(POINTER, 2**16)):
            yield Part("generic", "disk", found[0])

    def plan(self, project: Project) -> BuildPlan:
        digest, format = _pointer(project.tree.read(POINTER)) or ("", "")
        step = Step("Storing the disk", (str(PYTHON), "-IS", str(DISK), "store", digest, format))
        return BuildPlan(self.name, made=(Made(".disk", f"1 {digest}", (step,)),), machine=True)


def _pointer(raw: bytes | None) -> tuple[str, str] | None:
    try:
        found = json.loads(raw or b"")
        digest, format = found["id"], found["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(digest, str) or not is_digest(digest) or format not in ("qcow2", "raw"):
        return None
    return digest, format
