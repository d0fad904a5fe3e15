"""`releases*`, `rollback`, `cancel`: the history of an app, and going back in it."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from itertools import islice
from typing import Any

import click

from receiver.cli import out
from receiver.cli.args import DROP_WEB, RELEASE, app_argument, change, json_option, ledger_of
from receiver.cli.main import Context
from receiver.errors import NotFound, Rejected
from receiver.ledger.follow import follow
from receiver.ledger.ledger import Ledger
from receiver.ledger.queue import queued
from receiver.model import Change, Release, Status
from receiver.names import AppName
from receiver.ops.limits import limited
from receiver.story.rollback import changed_config, changes, target_of, warm
from receiver.story.submit import Submission, exit_code, scaled, tell
from receiver.story.visitors import refuse_to_drop_web


def row(ledger: Ledger, release: Release, current: int, pinned: tuple[int, ...]) -> dict[str, Any]:
    """A release as the list shows it and JSON gives it."""
    status = release.status.value
    if release.number == current:
        status = "live"
    elif release.status is Status.LIVE:
        status = "superseded" if ledger.is_whole(release) or not release.slug else "pruned"
    elif not release.status.final and not ledger.worker_lives(release.number):
        status = "interrupted"
    return {
        "release": release.name,
        "status": status,
        "source": came_by(release),
        "kind": release.origin.kind if release.origin else "",
        "id": release.origin.id if release.origin else "",
        "commit": (release.commit or "")[:8],
        "what": describe(release),
        "by": release.by,
        "when": out.age(release.created),
        "created": release.created,
        "pinned": release.number in pinned,
    }


def came_by(release: Release) -> str:
    """What was changed; for new files, the way they came."""
    return release.origin.kind if release.origin and release.change is Change.DEPLOY else release.change.value


def describe(release: Release) -> str:
    """One line: why this release was made."""
    return release.message or (release.origin.title if release.origin else "")


@click.command()
@app_argument
@click.option("-n", "--num", default=15, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
@json_option
@click.pass_obj
def list_releases(ctx: Context, app: AppName, num: int, form: str) -> None:
    """List the releases of an app, newest first; the live one is always shown.

    \b
    Example: shipit releases blog
    """
    ledger = ledger_of(ctx, app)
    state, current = ledger.state(), ledger.current_number()
    shown = list(islice(ledger.newest_first(), num))
    if current and all(release.number != current for release in shown):
        shown.append(ledger.release(current))
    rows = [row(ledger, release, current, state.pinned) for release in shown]
    if form == "json":
        out.show_json(rows)
        return
    for item in rows:
        item["release"] += " *" if item["pinned"] else ""
    out.table(
        rows,
        {"release": "RELEASE", "status": "STATUS", "when": "WHEN", "by": "BY", "source": "SOURCE", "commit": "COMMIT",
         "what": "WHAT"},
        empty=f"{app} has no releases yet. Push one: git push HOST:{app} main",
    )  # fmt: skip


@click.command()
@app_argument
@click.argument("release", type=RELEASE)
@json_option
@click.pass_obj
def info(ctx: Context, app: AppName, release: int, form: str) -> None:
    """Show all that is known of one release."""
    ledger = ledger_of(ctx, app)
    found = ledger.release(release)
    origin = found.origin
    shown = {
        **row(ledger, found, ledger.current_number(), ledger.state().pinned),
        "commit": found.commit or "",
        "branch": origin.ref if origin else "",
        "subject": origin.title if origin else "",
        "author": origin.author if origin else "",
        "key": found.key,
        "runtime": found.runtime,
        "slug": f"v{found.slug}" if found.slug else "",
        "environment": f"v{found.environment}" if found.environment else "",
        "shares": " ".join(f"v{number}" for number in sorted(found.runs_from - {found.slug})),
        "formation": " ".join(f"{kind}={count}" for kind, count in found.formation),
        "finished": out.when(found.finished),
        "seconds": " ".join(f"{name}={took}" for name, took in found.seconds),
        "reason": found.reason,
    }
    if form == "json":
        out.show_json(shown)
    else:
        out.fields({name: value for name, value in shown.items() if value not in ("", False)})


@click.command()
@app_argument
@click.argument("release", type=RELEASE, required=False)
@click.option("-f", "--follow", "follow_", is_flag=True, help="Go on until the release is finished.")
@click.pass_obj
def output(ctx: Context, app: AppName, release: int | None, follow_: bool) -> int:
    """Print the log of a release as it was built and put live (default: the newest)."""
    ledger = ledger_of(ctx, app)
    number = release or max([0, *ledger.numbers()])
    if not number:
        raise NotFound(f"{app} has no releases yet.")
    ledger.release(number)
    if follow_:
        return exit_code(follow(ledger, number, sys.stdout.fileno()))
    sys.stdout.buffer.write(ledger.paths.release(number).log.read_bytes())
    return 0


@click.command()
@app_argument
@click.argument("release", type=RELEASE)
@click.pass_obj
def pin(ctx: Context, app: AppName, release: int) -> None:
    """Keep a release from being pruned."""
    ledger = ledger_of(ctx, app)
    if not ledger.is_whole(ledger.release(release)):
        raise Rejected(f"v{release} was pruned already.", hint=f"See which are kept: shipit releases {app}")
    change(ledger, lambda state: replace(state, pinned=tuple(sorted({*state.pinned, release}))))
    out.say(f"Pinned v{release} of {app}.")


@click.command()
@app_argument
@click.argument("release", type=RELEASE)
@click.pass_obj
def unpin(ctx: Context, app: AppName, release: int) -> None:
    """Allow a release to be pruned again."""
    change(ledger_of(ctx, app), lambda s: replace(s, pinned=tuple(n for n in s.pinned if n != release)))
    out.say(f"Unpinned v{release} of {app}.")


@click.command()
@app_argument
@click.argument("release", type=RELEASE, required=False)
@click.option("--keep-config", is_flag=True, help="Bring back the code, keep today's config vars.")
@click.option("--drop-web", is_flag=True, help=DROP_WEB)
@click.pass_obj
def rollback(ctx: Context, app: AppName, release: int | None, keep_config: bool, drop_web: bool) -> int:
    """Bring back an earlier release, code and config vars (default: the previous good one).

    \b
    Examples:
      shipit rollback blog
      shipit rollback blog v7 --keep-config
    """
    ledger = ledger_of(ctx, app)
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        current = submission.current()
        target = target_of(ledger, release)
        if keep_config:
            config = ["  config  today's is kept"]
        else:
            now, then = (submission.agent.read_config(app, number) for number in (current.number, target.number))
            config = changed_config(now, then)
        formation = scaled(target.formation, dict(ledger.state().formation))
        processes = limited(target.processes, ledger.state().limits)
        if not drop_web:
            how = f"If this is intended: shipit rollback {app} {target.name} --drop-web"
            refuse_to_drop_web(current, ledger.state(), processes, dict(formation), how, static=target.static)
        same = not keep_config and processes == target.processes
        out.say(f"Rolling {app} back from {current.name} to {target.name}")
        code = submission.submit(
            Change.ROLLBACK,
            target,
            formation=formation,
            processes=processes,
            target=target.number,
            took_over=warm(submission.agent, current, target, formation) if same else 0,
            config_base=current.number if keep_config else target.number,
            message=f"rollback to {target.name}",
        )
        # Only now: nobody should wait for this list while the broken release serves.
        for line in changes(ledger, current, target, config) if code == 0 else ():
            out.say(line)
        return code


@click.command()
@app_argument
@click.pass_obj
def cancel(ctx: Context, app: AppName) -> int:
    """Stop the release that is being made; the one that serves goes on serving."""
    ledger = ledger_of(ctx, app)
    for release in ledger.unfinished():
        if not ledger.worker_lives(release.number):
            continue
        pid = ledger.paths.release(release.number).alive.read_text().strip()
        os.kill(int(pid), signal.SIGTERM)
        return 0 if follow(ledger, release.number, sys.stdout.fileno()).status is Status.CANCELLED else 1
    out.say(f"Nothing is being made of {app}.")
    return 0


@click.command()
@app_argument
@click.pass_obj
def cache_clear(ctx: Context, app: AppName) -> None:
    """Empty the app's build cache: the next build fetches and builds anew what it installs.

    Environments of releases stay. For a build that shares nothing with earlier ones: shipit deploy APP --fresh
    """
    ledger = ledger_of(ctx, app)
    with queued(ledger, ctx.caller.name, push=False, say=tell), ctx.connect_agent() as agent:
        agent.clear_cache(app)
    out.say(f"The build cache of {app} is empty.")
