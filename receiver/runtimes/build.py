"""The build plan: from a manifest and its tree to the commands that make the slug's environment. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from receiver.manifest import Manifest, Tree, subtree
from receiver.runtimes.all import RUNTIMES
from receiver.runtimes.base import BuildPlan, Project, Step
from receiver.settings import Settings

__all__ = ["BuildPlan", "Step", "adding", "build_plan", "following", "installing", "seeding"]

PATH = "/usr/local/bin:/usr/bin:/bin"
MAX_ADDED = 50  # more of them are a new start: asking for all takes no longer then


def build_plan(manifest: Manifest, tree: Tree, *, slug: Path, cache: Path, uv: Path, settings: Settings) -> BuildPlan:
    """Plan the build of a commit; raises Rejected with file and line when its files cannot be obeyed.

    `tree` is the whole commit, as `read_manifest` had it; `slug` receives only `manifest.root` of it. Every step's
    working directory is `slug`. The first runtime that knows the project plans it; the server's
    `build_environment` is for every build.
    """
    project = Project(manifest, subtree(tree, manifest.root), slug, cache, uv, settings)
    plan = next(plan for runtime in RUNTIMES if (plan := runtime(project)) is not None)
    environment = {
        "LANG": "C.UTF-8",
        "PATH": f"{project.venv / 'bin'}:{PATH}",
        **settings.build_environment,
        **plan.environment,
    }
    return replace(plan, environment=environment, steps=(*plan.steps, *_own(project)))


def installing(plan: BuildPlan) -> tuple[Step, ...]:
    """The steps that make `.venv` of nothing."""
    return tuple(step for step in plan.steps if step.installs)


def seeding(plan: BuildPlan) -> tuple[Step, ...]:
    """The steps that make `.venv` of a copy of an environment with the same `seed_key`."""
    return tuple(step for step in plan.steps if step.installs and not step.makes)


def adding(plan: BuildPlan, before: Collection[str]) -> tuple[Step, ...]:
    """The steps that make `.venv` of a copy that has just what `before` requires, if all that is required still; the
    copy must lose or change nothing by them, else they do not suffice. Empty when it takes more."""
    added = [line for line in plan.requires if line not in before]
    if not plan.adds or not before or not added or not set(before) <= set(plan.requires) or len(added) > MAX_ADDED:
        return ()
    return (replace(plan.adds, argv=(*plan.adds.argv, *added)),)


def following(plan: BuildPlan) -> tuple[Step, ...]:
    """The steps that come after, whatever `.venv` is: all that are left when it is a link."""
    return tuple(step for step in plan.steps if not step.installs)


def _own(project: Project) -> tuple[Step, ...]:
    """The app's own build command, last, as it was written."""
    command = project.manifest.build_command
    return (Step("Running the build command", ("/bin/bash", "-c", command), project.slug),) if command else ()
