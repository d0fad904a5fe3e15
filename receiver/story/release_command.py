"""The Procfile's `release:` line: once, in the new slug with the new config, before anything starts."""

from __future__ import annotations

from receiver.errors import BuildFailed
from receiver.model import Release, Source
from receiver.story import checkpoint, ended
from receiver.story.context import Host


def run_release_command(host: Host, release: Release) -> None:
    """Run it for a release that was built; raises BuildFailed, with the warning that it may have done half."""
    if release.release_command and release.source in (Source.GIT, Source.REBUILD):
        host.say.step(f"Release command: {release.release_command}")
        with host.say.timed("release command"), host.say.output() as output:
            code = host.agent.release_command(release.app, release.number, output)
        if code:
            how = ended.told(code, host.settings.release_command_timeout, host.settings)
            raise BuildFailed(
                f"The release command {how}; what it had already changed (a migration) is not undone by shipit."
            )
    checkpoint.reach("released")
