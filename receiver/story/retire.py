"""After the switch: let the old release finish what it has, stop it, and prune. Failures here only warn."""

from __future__ import annotations

import time

from receiver.errors import Failure
from receiver.host.source import GitSource
from receiver.model import Release
from receiver.story import checkpoint
from receiver.story.host import Host

# A connection may sit in the old socket's backlog while the link moves; docs/proxy.md has the measurement.
SETTLE = 0.2


def retire(host: Host, release: Release) -> None:
    """Stop every other release's processes (they drain behind us) and remove what no rollback needs any more."""
    try:
        others = {p.release for p in host.agent.processes(release.app)} - {release.number}
        if others:
            time.sleep(SETTLE)
        for number in sorted(others):
            host.agent.stop(release.app, number, wait=False)
        prune(host)
    except Failure as failure:
        host.say.warn(f"{release.name} is live, but the old release was not put away: {failure.message}")
    checkpoint.reach("retired")


def prune(host: Host) -> None:
    """Remove slugs, config and commits of releases that nothing points at; their records and logs stay."""
    kept = host.ledger.kept()
    gone = [r.number for r in host.ledger.releases() if r.number not in kept and is_stored(host, r.number)]
    if gone:
        host.agent.prune(host.ledger.app, gone)
        for number in gone:
            host.paths.release(number).sockets_link.unlink(missing_ok=True)
            GitSource(host.paths.repo).unpin(number)


def is_stored(host: Host, number: int) -> bool:
    """Whether anything of the release is left to prune: its sockets link goes last, so a cut-short prune goes on."""
    return host.paths.release(number).sockets_link.is_symlink()
