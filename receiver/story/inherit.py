"""What a build may take over from earlier ones: nothing that a package has written which is wanted no longer.

A package's own code runs in a build (its setup.py, a .pth file of it, a build command that imports it), as the same user
who writes the environment and the build cache. What it has written there cannot be told from what belongs there: it
could as well have changed the lists of what belongs there. So environments and caches are handed on to a build only
while all that was required for them is required still. What is new could not have written into them, and what is
required still may do in the new environment whatever it wants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from receiver.model import Release
from receiver.paths import AppPaths
from receiver.story.context import AppContext


def may_inherit(before: Sequence[str], now: Sequence[str]) -> bool:
    """Whether what was made for the packages `before` may be where those of `now` are installed."""
    return bool(before) and {*before} <= {*now}


def clear_left_behind(context: AppContext, release: Release, requires: Sequence[str]) -> None:
    """Empty the app's build cache before a build that wants nothing of the past, or for which a package has left.

    Before this build's plan is written: the newest plan then always says who may have written into the cache, however
    that build has ended.
    """
    before = last_requires(context.paths, release)
    if before is None or (not release.fresh and (may_inherit(before, requires) or not (before or requires))):
        return
    context.agent.clear_cache(release.app)
    context.say.line(
        "The build cache is empty: " + ("as asked." if release.fresh else "packages have changed or left.")
    )


def last_requires(paths: AppPaths, release: Release) -> list[str] | None:
    """What the newest build before this release asked for, whatever became of it; None when there was no build."""
    for number in range(release.number - 1, 0, -1):
        with suppress(OSError, ValueError, KeyError, TypeError):
            plan = json.loads(paths.release(number).build_plan.read_bytes())
            # An older shipit did not tell: nothing is among what it says.
            return [f"{made['name']}: {line}" for made in plan.get("made", []) for line in made["requires"]]
    return None
