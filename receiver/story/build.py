"""From a commit to a slug: read the manifest, plan, let the builder work in its cage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from receiver.errors import BuildFailed, NotFound
from receiver.manifest import Manifest, read_manifest
from receiver.model import Release
from receiver.names import Oid
from receiver.ops.all import sections
from receiver.paths import PREFIX
from receiver.records import Corrupt
from receiver.runtimes.build import BuildPlan, Step, adding, build_plan, following, installing, seeding
from receiver.sources.git.source import GitSource
from receiver.story import checkpoint, ended
from receiver.story.build_queue import turn_to_build
from receiver.story.context import AppContext
from receiver.story.domains import settle
from receiver.system import disk


def build(context: AppContext, release: Release, commit: Oid) -> Release:
    """Fill the release from its commit and build its slug."""
    context.say.step(f"Building {release.name} from {release.branch} {commit[:8]} {release.subject}".rstrip())
    source = GitSource(context.paths.repo)
    with context.say.timed("plan"):
        tree = source.tree(commit)
        manifest = read_manifest(tree, sections())
        for notice in manifest.notices:
            context.say.line(notice)
        paths = context.paths.release(release.number)
        plan = build_plan(
            manifest, tree, slug=paths.slug, cache=context.paths.cache, uv=PREFIX / "bin/uv", settings=context.settings
        )
        donor = find_environment(context, release, plan)
        adopt(context, manifest)
        release = context.ledger.save(settle(context, filled(context, release, manifest, plan, donor)))
        seed, requires = (0, []) if donor else find_seed(context, release, plan)
        text = encode_plan(context, plan, manifest.root, donor, seed, adding(plan, requires))
        disk.write_atomically(paths.build_plan, text, 0o640, lasts=disk.Lasts.LATER)
    with (
        turn_to_build(context, release, wanted=not donor or bool(following(plan))),
        context.say.timed("build"),
        context.say.output() as output,
        source.archive(commit) as stream,
    ):
        checkpoint.reach("unpacking")
        result = context.agent.build(release.app, release.number, stream.fileno(), output)
    if result.code:
        how = ended.told(result.code, context.settings.build_timeout, context.settings)
        raise BuildFailed(f"The build of {release.name} {how}.")
    release = context.ledger.save(replace(release, digest=result.digest))
    checkpoint.reach("built")
    return release


def filled(context: AppContext, release: Release, manifest: Manifest, plan: BuildPlan, donor: int) -> Release:
    """The release with what its commit says."""
    scaled = dict(context.ledger.state().formation)
    formation = tuple((kind, scaled.get(kind, count)) for kind, count in manifest.formation)
    return replace(
        release,
        processes=manifest.processes,
        formation=formation,
        release_command=manifest.release_command,
        build_config=manifest.build_config,
        env=manifest.env,
        capabilities=manifest.sections,
        domains=manifest.domains,
        warm=context.settings.warm if manifest.warm is None else manifest.warm,
        runtime=plan.runtime,
        environment_key=plan.environment_key,
        environment=donor or release.number,
    )


def adopt(context: AppContext, manifest: Manifest) -> None:
    """Take over what the manifest says of the app and not of the release: how many releases it keeps."""
    if manifest.keep:
        context.ledger.change_state(lambda state: replace(state, keep=manifest.keep))


def find_environment(context: AppContext, release: Release, plan: BuildPlan) -> int:
    """The release whose `.venv` this one can use as it is, or 0: same key, whole, and still on disk."""
    if not plan.environment_key or release.fresh:
        return 0
    same = (r.environment for r in built_before(context, release) if r.environment_key == plan.environment_key)
    return next((number for number in same if context.paths.release(number).slug.is_dir()), 0)


def find_seed(context: AppContext, release: Release, plan: BuildPlan) -> tuple[int, list[str]]:
    """The newest release with a `.venv` of its own of which a copy saves most of the installing, or 0; and what was
    required there, if nothing else has put anything into it."""
    if not plan.seed_key or release.fresh:
        return 0, []
    for other in built_before(context, release):
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(context.paths.release(other.number).build_plan.read_bytes())
            if other.environment == other.number and known["seed_key"] == plan.seed_key:
                return other.number, [] if known["following"] else known.get("requires", [])
    return 0, []


def built_before(context: AppContext, release: Release) -> Iterator[Release]:
    """The releases whose slug was built and is still on disk, newest first."""
    # Only what is built still has a slug: the rest of a long history need not be read.
    for number in sorted({*context.ledger.built()} - {release.number}, reverse=True):
        with suppress(NotFound, Corrupt):
            other = context.ledger.release(number)
            if other.digest:
                yield other


def encode_plan(context: AppContext, plan: BuildPlan, root: str, donor: int, seed: int, added: Sequence[Step]) -> bytes:
    """build.json as the builder reads it: `.venv` is a link to the donor's, or made of a copy of the seed's, or anew."""

    def environment_of(number: int) -> str:
        return str(context.paths.release(number).slug / ".venv") if number else ""

    body = {
        "root": root,
        "environment": dict(plan.environment),
        "link": environment_of(donor),
        "seed": environment_of(seed),
        "adding": encode_steps(added),
        "seeding": [] if donor else encode_steps(seeding(plan)),
        "installing": [] if donor else encode_steps(installing(plan)),
        "following": encode_steps(following(plan)),
        "seed_key": plan.seed_key,
        "requires": plan.requires,
        "cache": context.settings.cache * 2**20,
    }
    return json.dumps(body, indent=1).encode() + b"\n"


def encode_steps(steps: Sequence[Step]) -> list[dict[str, object]]:
    return [
        {"title": s.title, "argv": list(s.argv), "cwd": str(s.cwd), "environment": dict(s.environment)} for s in steps
    ]
