"""Which directories a build can take from an earlier release instead of making them again.

Each release's build.json says what its build made, with which keys, and in whose slug that lies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from receiver.errors import NotFound
from receiver.manifest import Manifest
from receiver.model import Release
from receiver.records import Corrupt
from receiver.runtimes.base import BuildPlan, Made, Step
from receiver.runtimes.build import adding
from receiver.story.context import AppContext
from receiver.story.inherit import may_inherit


@dataclass(frozen=True)
class Reused:
    """What to do for one directory of a build. `link`: the release in whose slug an equal one lies; `seed`: the release
    whose directory may be copied and completed (0: none). `requires`: what that one was made of, if only the installer
    has written into it."""

    made: Made
    link: int = 0
    seed: int = 0
    requires: tuple[str, ...] = ()


def find(context: AppContext, release: Release, plan: BuildPlan) -> list[Reused]:
    """For each directory that the plan makes, the best match in earlier releases."""
    if release.fresh or not any(made.key for made in plan.made):
        return [Reused(made) for made in plan.made]
    earlier = list(_builds(context, release))
    return [_best(context, made, plan.steps, earlier) for made in plan.made]


def requires(plan: BuildPlan) -> list[str]:
    """Every package that the plan asks for, in all its directories."""
    return [f"{made.name}: {line}" for made in plan.made for line in made.requires]


def shares(found: Sequence[Reused]) -> tuple[int, ...]:
    """The releases that a slug links to; their files stay on disk as long as it does."""
    return tuple(sorted({reused.link for reused in found} - {0}))


def encoded(
    context: AppContext, release: Release, plan: BuildPlan, found: Sequence[Reused], manifest: Manifest
) -> bytes:
    """build.json of a release: what the builder does, and what later builds need to know of it."""

    def place(owner: int, made: Made) -> str:
        return str(context.paths.release(owner).slug / made.name) if owner else ""

    body = {
        "root": manifest.root,
        "static": manifest.static,
        "storage": [[str(context.paths.data / data), place] for data, place in release.storage],
        "absent": absent(context, release, manifest),
        "assets": sorted({directory for _, directory in manifest.serving.assets}),
        "environment": dict(plan.environment),
        "made": [
            {
                "name": made.name,
                "key": made.key,
                "seed_key": made.seed_key,
                "requires": made.requires,
                "in": reused.link or release.number,
                "link": place(reused.link, made),
                "seed": place(reused.seed, made),
                "copier": made.copier,
                "adding": encode_steps(adding(made, reused.requires)),
                "seeded": encode_steps(made.seeded),
                "steps": encode_steps(made.steps),
            }
            for reused in found
            for made in [reused.made]
        ],
        "following": encode_steps(plan.steps),
        "cache": context.settings.cache * 2**20,
    }
    return json.dumps(body, indent=1).encode() + b"\n"


def absent(context: AppContext, release: Release, manifest: Manifest) -> list[str]:
    """The places of the app's data that a build finds as the commit has them, empty or not there: those that the app was
    given by itself (story/beside.py). The build that came before did without, and may make them: `mkdir logs`."""
    named = {place for _, place in manifest.storage}
    if not (found := {place for _, place in release.storage} - named):
        return []
    return sorted(found & {place for _, build in _builds(context, release) for place in build["absent"]})


def encode_steps(steps: Sequence[Step]) -> list[dict[str, object]]:
    return [{"title": s.title, "argv": list(s.argv), "environment": dict(s.environment)} for s in steps]


Build = tuple[int, dict[str, Any]]  # a release's number, its build.json


def _best(context: AppContext, made: Made, steps: Sequence[Step], earlier: Sequence[Build]) -> Reused:
    argvs = [list(step.argv) for step in steps]
    for _, build in earlier:
        same = _of(build, made)
        # Build commands may write into a linked directory; the same commands have shown whether they do (builder.py).
        known = not made.copier or not argvs or [step["argv"] for step in build["following"]] == argvs
        if made.key and same and same["key"] == made.key and known and context.paths.release(same["in"]).slug.is_dir():
            return Reused(made, link=same["in"])
    for number, build in earlier:
        like = _of(build, made)
        fits = made.seed_key and like and like["in"] == number and like["seed_key"] == made.seed_key
        if fits and may_inherit(like["requires"], made.requires):
            return Reused(made, seed=number, requires=() if build["following"] else tuple(like["requires"]))
    return Reused(made)


def _of(build: dict[str, Any], made: Made) -> dict[str, Any]:
    return next((known for known in build["made"] if known["name"] == made.name), {})


def _builds(context: AppContext, release: Release) -> Iterator[Build]:
    """The builds whose slug is complete and still on disk, newest first; build.json of an older shipit says less."""
    # Only releases in built() have a slug: the rest of a long history need not be read.
    for number in sorted({*context.ledger.built()} - {release.number}, reverse=True):
        with suppress(NotFound, Corrupt, OSError, ValueError, KeyError):
            if context.ledger.release(number).digest:
                build = json.loads(context.paths.release(number).build_plan.read_bytes())
                more = {"absent": build.get("absent", [])}
                yield number, {"made": build["made"], "following": build["following"], **more}
