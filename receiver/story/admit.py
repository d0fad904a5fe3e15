"""Refuses a push whose build could only fail, before a release is made of it and before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from receiver.caller import Caller, Role
from receiver.engines import all as engines
from receiver.errors import HostFault
from receiver.ledger.ledger import Ledger
from receiver.manifest import Manifest
from receiver.names import Domain, Oid
from receiver.ops.all import sections
from receiver.paths import Layout
from receiver.runtimes.read import makes_image, read_manifest
from receiver.settings import Settings
from receiver.sources.git.commits import Commits
from receiver.story import containers
from receiver.story.domains import approve, approved
from receiver.story.visitors import refuse_to_drop_web

# Inodes that the build and the ledger need, beside one for each file of the commit.
SPARE_INODES = 10_000


def admit(
    layout: Layout, ledger: Ledger, settings: Settings, caller: Caller, commits: Commits, commit: Oid
) -> tuple[Manifest, Sequence[Domain]]:
    """Check the free disk space, the tree's size, the manifest, and that the app may have the domains that it asks for.

    Returns the manifest, and the names that an admin approves by having it deployed (domains.approve).
    """
    room = room_for(ledger, settings)
    # Raises Rejected if the commit's objects are too large to be read.
    commits.commit(commit)
    tree = commits.tree(commit, max_files=settings.max_files, max_size=room)
    disk = os.statvfs(ledger.paths.dir)
    if disk.f_files and disk.f_favail < len(tree.entries()) + SPARE_INODES:
        raise HostFault(
            f"The server's disk has only {disk.f_favail} inodes left.",
            holds="Nothing was received.",
            hint="Keep fewer releases, or make room on the server; see: shipit doctor",
        )
    manifest = read_manifest(tree, sections())
    engines.refuse_untimely(layout, manifest.processes)
    if makes_image(manifest):
        containers.refuse_without(settings, caller)
    return manifest, approve(layout, ledger, manifest.domains, settings, admin=caller.role is Role.ADMIN)


class Admission:
    """`admit` as the check of a source (sources/base.py, Sent). `names` is what it returned. `how` is the command that
    allows the app to lose its web process; "" if the user has allowed that already."""

    def __init__(self, layout: Layout, ledger: Ledger, settings: Settings, caller: Caller, how: str) -> None:
        self._layout, self._ledger, self._settings, self._caller = layout, ledger, settings, caller
        self._how = how
        self.names: Sequence[Domain] = ()

    def __call__(self, commits: Commits, commit: Oid) -> None:
        manifest, self.names = admit(self._layout, self._ledger, self._settings, self._caller, commits, commit)
        if self._how:
            keep_web(self._ledger, manifest, self._how)


def keep_web(ledger: Ledger, manifest: Manifest, how: str) -> None:
    """Refuse a release that would leave the app without a web process; `how` is the command that allows it."""
    state = ledger.state()
    counts = {**dict(manifest.formation), **dict(state.formation)}
    refuse_to_drop_web(ledger.current(), state, manifest.processes, counts, how, static=manifest.static)


def approve_for(caller: Caller, ledger: Ledger, names: Sequence[Domain]) -> None:
    """After the release is accepted: if an admin sent it, that approves the domains it asks for."""
    if names and caller.role is Role.ADMIN:
        ledger.change_state(lambda state: approved(state, names))


def room_for(ledger: Ledger, settings: Settings) -> int:
    """How many bytes a release of the app may bring; raises HostFault when the disk is nearly full."""
    disk = os.statvfs(ledger.paths.dir)
    free, keep = disk.f_bavail * disk.f_frsize, settings.min_free * 2**20
    if free < keep:
        raise HostFault(
            f"The disk of the server is nearly full: {free // 2**20} MiB are free, {keep // 2**20} MiB must stay.",
            holds="Nothing was received.",
            hint="Keep fewer releases, or make room on the server; see: shipit doctor",
        )
    return free - keep
