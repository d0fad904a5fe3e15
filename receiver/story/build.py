"""From a commit to a slug: read the manifest, plan, have the sandboxed builder do it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from receiver.engines import all as engines
from receiver.errors import BuildFailed, Rejected, as_root
from receiver.manifest import Manifest
from receiver.model import Listen, Origin, ProcessEnv, Release
from receiver.names import AppName
from receiver.ops.all import sections
from receiver.ops.limits import limited
from receiver.ops.vm import VMCapability
from receiver.paths import PREFIX
from receiver.runtimes.base import BuildPlan
from receiver.runtimes.build import build_plan
from receiver.runtimes.read import read_manifest
from receiver.sources.all import source_of
from receiver.story import checkpoint, containers, ended, reuse
from receiver.story.advice import build_advice, lacking
from receiver.story.build_queue import turn_to_build
from receiver.story.context import AppContext
from receiver.story.domains import settle
from receiver.story.inherit import clear_left_behind
from receiver.system import apt, disk


def build(context: AppContext, release: Release, origin: Origin) -> Release:
    """Fill the release's fields from its commit, and build its slug."""
    context.say.step(f"Building {release.name} from {told_of(origin)}")
    source = source_of(context.paths, origin)
    with context.say.timed("plan"):
        tree = source.tree(origin)
        manifest = read_manifest(tree, sections())
        engines.refuse_untimely(context.layout, manifest.processes)
        for notice in manifest.notices:
            context.say.line(notice)
        paths = context.paths.release(release.number)
        for_packages(context, manifest.apt, release.app)
        release = with_config(context, release, manifest)
        plan, process = build_plan(
            manifest,
            tree,
            slug=paths.slug,
            cache=context.paths.cache,
            tools=PREFIX / "bin",
            settings=context.settings,
            described=lambda: source.described(origin),
        )
        if plan.image:
            containers.install(context.agent, context.say.output, context.say.step)
        shows = ", ".join(what for _, what in manifest.runtimes if what)
        if VMCapability.key in manifest.sections and not plan.machine:
            context.say.warn("`vm` of shipit.yml has no effect on this release: it is no virtual machine.")
        context.say.line(f"Runtime: {plan.runtime}" + (f" (found by {shows})" if shows else ""))
        found = reuse.find(context, release, plan)
        adopt(context, manifest)
        release = context.ledger.save(settle(context, filled(context, release, manifest, plan, process, found)))
        clear_left_behind(context, release, reuse.requires(plan))
        text = reuse.encoded(context, release, plan, found, manifest)
        disk.write_atomically(paths.build_plan, text, 0o640, lasts=disk.Lasts.LATER)
    if logins := containers.logins(context.layout, context.paths, plan.pulls):
        context.agent.log_in(release.app, logins)
    waits = bool(plan.steps) or not all(reused.link for reused in found)
    while True:
        with (
            turn_to_build(context, release, wanted=waits),
            context.say.timed("build"),
            context.say.output() as output,
            source.open(origin) as stream,
        ):
            checkpoint.reach("unpacking")
            result = context.agent.build(release.app, release.number, stream.fileno(), output)
        # A build in a container cannot use packages of the server.
        brought = bring_lacking(context, release) if result.code and not plan.image else []
        if not brought:
            break
        release = context.ledger.save(replace(release, apt=(*release.apt, *brought)))
    if result.code:
        how = ended.told(result.code, context.settings.build_timeout, context.settings)
        advice = build_advice(release, context.say.last)
        if plan.image:
            advice = containers.login_advice(context.layout, context.paths, advice)
        raise BuildFailed(f"The build of {release.name} {how}.", hint=advice)
    release = context.ledger.save(replace(release, digest=result.digest))
    checkpoint.reach("built")
    return release


def bring_lacking(context: AppContext, release: Release) -> list[str]:
    """After a failed build: install the Debian packages that it lacked, if an administrator has allowed all of them.
    Returns the new ones; [] if another build would fail like this one."""
    brought = [name for name in apt.missing(lacking(release, context.say.last)) if name not in release.apt]
    try:
        for_packages(context, brought, release.app)
    except Rejected:
        return []
    return brought


def for_packages(context: AppContext, packages: Sequence[str], app: AppName) -> None:
    """Install the Debian packages that the app asks for; raises Rejected, with the command for an administrator, if one
    is not allowed."""
    missing = apt.missing(packages)
    if not missing:
        return
    context.say.step(f"Installing {', '.join(missing)} on the server (apt)")
    with context.say.output() as output:
        code = context.agent.install_packages(app, missing, output)
    if left := apt.missing(missing):
        failed = f"apt ended with {code}" if code else "apt says that all is well"
        raise Rejected(
            f"The server has no {', '.join(left)}, which the app asks for (apt): {failed}.",
            hint=f"Its administrator types: {as_root('apt install ' + ' '.join(left))}\nThen push again.",
        )


def with_config(context: AppContext, release: Release, manifest: Manifest) -> Release:
    """The release, with the secrets that its commit asks for. Raises Rejected if a config var is missing that the app
    requires."""
    file, wished = manifest.example
    # Only at the first release: a var that is missing later was left out on purpose.
    wished = wished if not context.ledger.current_number() else ()
    if not (manifest.required or manifest.secrets or wished):
        return release
    known = context.agent.read_config(release.app, release.config_base)
    said = {*known, *dict(manifest.env), *(key for key, _ in manifest.required), *manifest.secrets}
    if unset := [key for key in wished if key not in said]:
        context.say.line(f"{file} names config vars that are not set: {', '.join(unset)}. Those that the app needs:")
        context.say.line(f"    shipit config:set {release.app} {unset[0]}=…")
    if missing := [(key, where) for key, where in manifest.required if key not in known]:
        told = "\n".join(f"{where}: the app needs the config var {key}, which is not set." for key, where in missing)
        words = " ".join(f"{key}=…" for key, _ in missing)
        raise Rejected(
            told, hint=f'shipit config:set {release.app} {words}\n(or give it a value there, or "required": false)'
        )
    made = {key: secrets.token_urlsafe(48) for key in manifest.secrets if key not in known}
    if not made:
        return release
    context.say.line(f"Made a secret for {', '.join(made)}")
    context.agent.snapshot_config(release.app, release.number, release.config_base, made, [])
    context.say.hide([*known.values(), *made.values()])
    return replace(release, config_base=release.number)


def told_of(origin: Origin) -> str:
    """`main 1a2b3c4d Add a page`."""
    return " ".join(part for part in (origin.ref, origin.short, origin.title) if part)


def filled(
    context: AppContext,
    release: Release,
    manifest: Manifest,
    plan: BuildPlan,
    process: ProcessEnv,
    found: Sequence[reuse.Reused],
) -> Release:
    """The release with the fields that its commit decides."""
    scaled = dict(context.ledger.state().formation)
    formation = tuple((kind, scaled.get(kind, count)) for kind, count in manifest.formation)
    processes = manifest.processes
    if plan.image or plan.machine:
        # An app in containers has ports of its own; shipit's front takes its requests from a socket.
        processes = tuple(replace(p, listen=Listen.SOCKET) if p.listen is Listen.PORT else p for p in processes)
    return replace(
        release,
        processes=limited(processes, context.ledger.state().limits),
        formation=formation,
        release_command=manifest.release_command,
        build_config=manifest.build_config,
        env=manifest.env,
        capabilities=manifest.sections,
        domains=manifest.domains,
        warm=context.settings.warm if manifest.warm is None else manifest.warm,
        serving=manifest.serving,
        runtime=plan.runtime,
        process_env=process,
        shares=reuse.shares(found),
        environment=found[0].link or release.number if found else 0,
        environment_key=found[0].made.key if found else "",
        static=manifest.static,
        storage=mounts(context, manifest),
        image=plan.image,
        machine=plan.machine,
        apt=manifest.apt,
    )


def mounts(context: AppContext, manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Which places of the app's data are mounted where: as the manifest says, and a command's choice over that."""
    said = {place: data for data, place in (*manifest.storage, *context.ledger.state().storage)}
    for place in said:
        if around := next((other for other in said if place.startswith(f"{other}/")), ""):
            raise Rejected(f"storage: {place} and {around} lie in one another.", hint="Keep one of the two.")
    return tuple((data, place) for place, data in sorted(said.items()))


def adopt(context: AppContext, manifest: Manifest) -> None:
    """Take over the setting of the manifest that belongs to the app, not the release: how many releases it keeps.
    Without it, the server's default applies."""
    keep = manifest.keep or context.settings.keep
    if context.ledger.state().keep != keep:
        context.ledger.change_state(lambda state: replace(state, keep=keep))
