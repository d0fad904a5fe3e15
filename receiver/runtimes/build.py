"""Makes the build plan from a manifest and its tree. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from receiver.manifest import Manifest, Tree, subtree
from receiver.model import ProcessEnv
from receiver.runtimes.all import RUNTIMES
from receiver.runtimes.base import BuildPlan, Made, Project, Runtime, Step
from receiver.settings import Settings

PATH = "/usr/local/bin:/usr/bin:/bin"
MAX_ADDED = 50  # with more additions, installing everything takes no longer


def build_plan(
    manifest: Manifest,
    tree: Tree,
    *,
    slug: Path,
    cache: Path,
    tools: Path,
    settings: Settings,
    described: Callable[[], str] = str,
    runtimes: Sequence[Runtime] = RUNTIMES,
) -> tuple[BuildPlan, ProcessEnv]:
    """Plan the build of a commit, and the environment of its processes; raises Rejected with file and line if its files
    ask for something impossible.

    `tree` is the whole commit, as for `read_manifest`; `slug` gets only its directory `manifest.root`. One build for
    all runtimes in the manifest; every step gets the server's `build_environment` and the manifest's defaults of config
    vars. `described` returns the commit's place relative to the tags, as git describes it ("" = not known).
    """
    project = Project(manifest, subtree(tree, manifest.root), slug, cache, tools, settings, described)
    named = [name for name, _ in manifest.runtimes]
    found = [runtime for runtime in runtimes if runtime.name in named]
    plans = [runtime.plan(project) for runtime in reversed(found)]
    process = _together([runtime.process(project) for runtime in found])
    environment = {
        **dict(manifest.env),
        "LANG": "C.UTF-8",
        "PATH": ":".join([*(str(slug / directory) for directory in process.path), PATH]),
        **settings.build_environment,
    }
    for plan in plans:
        environment |= plan.environment
    return BuildPlan(
        runtime=" + ".join(plan.runtime for plan in reversed(plans)),
        environment=environment,
        made=tuple(made for plan in plans for made in plan.made),
        steps=(*(step for plan in plans for step in plan.steps), *_own(manifest)),
        image=any(plan.image for plan in plans),
        machine=any(plan.machine for plan in plans),
        pulls="".join(plan.pulls for plan in plans),
    ), process


def adding(made: Made, before: Collection[str]) -> tuple[Step, ...]:
    """The steps that complete a copied directory made of just what `before` requires, if all of that is still required.
    If they lose or change anything in the copy, they do not suffice. Empty if more than that is needed."""
    added = [line for line in made.requires if line not in before]
    if not made.adds or not before or not added or not set(before) <= set(made.requires) or len(added) > MAX_ADDED:
        return ()
    return (replace(made.adds, argv=(*made.adds.argv, *added)),)


def _together(parts: Sequence[ProcessEnv]) -> ProcessEnv:
    """The environment of an app with several runtimes: what each adds, the first row's first."""
    return ProcessEnv(
        path=tuple(directory for part in parts for directory in part.path),
        variables=tuple(pair for part in parts for pair in part.variables),
        socket=tuple(pair for part in parts for pair in part.socket),
    )


def _own(manifest: Manifest) -> tuple[Step, ...]:
    """The app's own build command, as it was written; it comes last."""
    command = manifest.build_command
    return (Step("Running the build command", ("/bin/bash", "-c", command)),) if command else ()
