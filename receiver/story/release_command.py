"""The Procfile's `release:` line: runs once, in the new slug with the new config, before any process starts."""

from __future__ import annotations

from receiver.errors import BuildFailed
from receiver.model import Change, Release
from receiver.story import checkpoint, ended
from receiver.story.advice import advice
from receiver.story.context import AppContext


def run_release_command(context: AppContext, release: Release) -> None:
    """Run it for a release that was built; raises BuildFailed, which warns that the command may have done half."""
    if release.release_command and release.change in (Change.DEPLOY, Change.REBUILD):
        context.say.step(f"Release command: {release.release_command}")
        with context.say.timed("release command"), context.say.output() as output:
            code = context.agent.release_command(release.app, release.number, output)
        if code:
            how = ended.told(code, context.settings.release_command_timeout, context.settings)
            raise BuildFailed(
                f"The release command {how}; what it had already changed (a migration) is not undone by shipit.",
                hint=advice(release.app, context.say.last),
            )
    checkpoint.reach("released")
