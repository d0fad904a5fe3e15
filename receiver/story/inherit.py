"""What a build may take over from earlier builds: nothing that a package could have written that is no longer required.

A package's own code runs in a build (its setup.py, its .pth file, a build command that imports it), as the user who
writes the environment and the build cache. What it wrote there cannot be told from what belongs there; it could have
changed the lists of what belongs there, too. So a build gets an earlier environment or cache only while every package
that was required for that is still required. A new package cannot have written into it; a package that is still
required may do what it wants in the new environment anyway.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from receiver.model import Release
from receiver.paths import AppPaths
from receiver.story.context import AppContext


def may_inherit(before: Sequence[str], now: Sequence[str]) -> bool:
    """Whether an environment made for the packages `before` may be used to install the packages `now`."""
    return bool(before) and {*before} <= {*now}


def clear_left_behind(context: AppContext, release: Release, requires: Sequence[str]) -> None:
    """Empty the app's build cache before a build that asks for nothing of the past, or that no longer requires a
    package.

    This comes before this build's plan is written. So the newest plan always lists every package that may have written
    into the cache, however that build ended.
    """
    before = last_requires(context.paths, release)
    if before is None or (not release.fresh and (may_inherit(before, requires) or not (before or requires))):
        return
    context.agent.clear_cache(release.app)
    context.say.line(
        "The build cache is empty: " + ("as asked." if release.fresh else "packages have changed or left.")
    )


def last_requires(paths: AppPaths, release: Release) -> list[str] | None:
    """What the newest build before this release required, however it ended; None if there was no build."""
    for number in range(release.number - 1, 0, -1):
        with suppress(OSError, ValueError, KeyError, TypeError):
            plan = json.loads(paths.release(number).build_plan.read_bytes())
            # A plan of an older shipit has no such list; then no requirement of it is known.
            return [f"{made['name']}: {line}" for made in plan.get("made", []) for line in made["requires"]]
    return None
