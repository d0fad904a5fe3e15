"""`git:sync`: an app that follows a repository elsewhere; what it fetches with is access.py's."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import click

from receiver import names, settings
from receiver.caller import Caller, Role
from receiver.cli import out
from receiver.cli.args import app_argument, json_option, ledger_of
from receiver.cli.main import Context
from receiver.engines import all as engines
from receiver.errors import Failure, Rejected, printable
from receiver.ledger.ledger import open_app
from receiver.names import AppName
from receiver.paths import Layout
from receiver.proxy.endpoint import address
from receiver.sources.pull import access, hook
from receiver.sources.pull.remote import checked_pattern, checked_ref
from receiver.sources.pull.status import checked_url as checked_status
from receiver.sources.pull.status import is_url, told
from receiver.sources.pull.wish import OFTEN, SELDOM, WAIT, Follow, Place
from receiver.story.submit import tell
from receiver.system import disk
from receiver.system.audit import Audit
from receiver.system.limits import limit_memory
from receiver.system.told import told as print_told

_EVERY = re.compile(r"([1-9][0-9]{0,6})([smhd]?)", re.ASCII)
_UNITS = {"": 60, "s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@app_argument
@click.argument("url", required=False)
@click.argument("ref", required=False)
@click.option("--every", metavar="5m", help="Look by itself this often (60s to 7d); off: only when asked.")
@click.option("--tags", metavar="PATTERN", help="Follow the newest version among these tags, such as 'v*'.")
@click.option(
    "--verify-signatures/--no-verify-signatures",
    "signed",
    default=None,
    help="Take only what an allowed signer has signed.",
)
@click.option("--webhook/--no-webhook", default=None, help="Look when a webhook comes, and print what to enter for it.")
@click.option(
    "--wait-for", metavar="URL|COMMAND", help="Take a commit only when this says that it is good; off: at once."
)
@click.option("--wait-most", metavar="1h", help="How long --wait-for may say nothing (60s to 7d; default 1h).")
@click.option("--off", is_flag=True, help="Follow nothing any more; keys and passwords stay.")
@click.pass_obj
def sync(
    ctx: Context,
    app: AppName,
    url: str | None,
    ref: str | None,
    every: str | None,
    tags: str | None,
    signed: bool | None,
    webhook: bool | None,
    wait_for: str | None,
    wait_most: str | None,
    off: bool,
) -> int:
    """Follow a repository elsewhere: fetch a branch or tag, and put it live when it has moved.

    \b
    Examples:
      shipit git:sync blog https://github.com/ann/blog main --every 5m
      shipit git:sync blog git@github.com:ann/blog --tags 'v*'
      shipit git:sync blog --wait-for 'https://api.github.com/repos/ann/blog/commits/{commit}/status'
      shipit git:sync blog --wait-for './may-go $COMMIT'
      shipit git:sync blog                    look now
      shipit git:sync blog --off
    """
    from receiver.story.pull import Pull

    ledger = ledger_of(ctx, app)
    place = Place(ledger.paths)
    if off:
        hooked(ctx, app, wanted=False)
        with ctx.connect_agent() as agent:
            agent.look_every(app, 0)
        out.say(f"{app} follows nothing any more." if place.drop() else f"{app} followed nothing.")
        return 0
    with place.changing():
        before = now = place.read()
        if url:
            now = now if now and now.url == url else elsewhere(access.checked_url(url), now)
            now = replace(now, ref=checked_ref(ref) if ref else "", tags="")
        elif now is None:
            raise Rejected(f"{app} follows no repository.", hint=f"Follow one: shipit git:sync {app} URL [REF]")
        if tags is not None:
            if ref:
                raise Rejected(
                    "A ref or a pattern of tags, not both.", holds="Nothing was changed.",
                    hint=f"shipit git:sync {app} {printable(now.url)} --tags {shlex.quote(tags)}",
                )  # fmt: skip
            now = replace(now, ref="", tags=checked_pattern(tags))
        if before and (before.ref, before.tags) != (now.ref, now.tags):
            # The new branch's history need not contain the old commit.
            now = replace(now, name="", seen="", commit="", refused="")
        if signed is not None:
            now = replace(now, signed=signed)
        if every is not None:
            now = replace(now, every=seconds(every))
        if wait_for is not None:
            now = replace(now, wait_for=waited(wait_for), waiting=0.0, waits_on="")
        if wait_most is not None:
            now = replace(now, wait_most=seconds(wait_most) or WAIT)
        place.save(now)
    if url or every is not None:
        timed(ctx, app, now)
    if webhook is not None:
        hooked(ctx, app, wanted=webhook)
    return Pull(ctx.layout, ledger, ctx.settings, ctx.caller, asked=True).look()


def elsewhere(url: str, before: Follow | None) -> Follow:
    """Follow another repository: settings stay, above all the allowed signers; what was seen of the old one goes."""
    if before is None:
        return Follow(url)
    return Follow(url, every=before.every, signed=before.signed, wait_for=before.wait_for, wait_most=before.wait_most)


def hooked(ctx: Context, app: AppName, *, wanted: bool) -> None:
    """Let nginx accept a webhook for the app, and print its address and secret; or stop accepting it."""
    ledger = ledger_of(ctx, app)
    place, mark = Place(ledger.paths), ledger.paths.has_hook
    if wanted and not engines.has_timers(ctx.layout):
        raise Rejected(
            "This machine has nothing that would take a webhook.", hint=f"Have cron call: shipit git:sync {app}"
        )
    if not wanted and not mark.exists():
        return
    with place.changing():
        secret = hook.secret_of(place.hook) or hook.new_secret()
        if wanted:
            place.write(place.hook, f"{secret.path} {secret.key}\n")
            disk.write_atomically(mark, b"", 0o640)
        else:
            disk.remove_file(mark)
            disk.remove_file(place.hook)
    with ctx.connect_agent() as agent:
        agent.proxy(app)
    if wanted:
        current = ledger.current()
        base = address(ctx.layout, ledger.state(), current, ctx.settings)
        out.fields({"webhook": base + secret.address(app), "secret": secret.key, "content type": "application/json"})


def timed(ctx: Context, app: AppName, follow: Follow) -> None:
    """Set the app's timer, and say so."""
    if follow.every and not engines.has_timers(ctx.layout):
        tell(f"This machine has no timers. Have your own call, every {words(follow.every)}: shipit git:sync {app}")
        return
    with ctx.connect_agent() as agent:
        agent.look_every(app, follow.every)
    if follow.every:
        tell(f"{app} follows {follow.what} of {follow.url}, and looks every {words(follow.every)}.")


def seconds(text: str) -> int:
    """`5m` → 300; a bare number is minutes, `off` is 0."""
    if text in ("off", "0"):
        return 0
    match = _EVERY.fullmatch(text)
    found = int(match[1]) * _UNITS[match[2]] if match else 0
    if not OFTEN <= found <= SELDOM:
        raise Rejected(
            f"{text[:20]!a} is no time between {OFTEN} seconds and 7 days.", hint="As in: 90s, 5m, 2h, 1d; off"
        )
    return found


def waited(text: str) -> str:
    """The value for --wait-for in the record: a URL, or a command of one line; "" for `off`."""
    if text == "off":
        return ""
    if is_url(text):
        return checked_status(text)
    if not text.strip() or not text.isprintable() or len(text) > 1000:
        raise Rejected("What is waited for is a URL or a command of one line.", hint="--wait-for './may-go $COMMIT'")
    return text


def words(every: int) -> str:
    return next(
        f"{every // size}{unit}" for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if not every % size
    )


@click.command()
@app_argument
@json_option
@click.pass_obj
def report(ctx: Context, app: AppName, form: str) -> int:
    """Say what an app follows, and how the last look went. Exit 1 when it cannot be reached, or was refused."""
    follow = Place(ledger_of(ctx, app).paths).read()
    shown = fields(follow)
    if form == "json":
        out.show_json(shown)
    elif follow is None:
        out.say(f"{app} follows nothing. Follow a repository: shipit git:sync {app} URL [REF]")
    else:
        out.fields({name: printable(value) for name, value in shown.items() if value})
    return 1 if follow and (follow.failing or follow.refused) else 0


def fields(follow: Follow | None) -> dict[str, str]:
    if follow is None:
        return {}
    return {
        "url": follow.url,
        "follows": follow.what,
        "every": words(follow.every) if follow.every else "when asked",
        "signatures": "checked" if follow.signed else "",
        "waits for": told(follow.wait_for),
        "waiting since": out.when(follow.waiting),
        "looked": out.when(follow.looked) if follow.looked else "",
        "at": f"{follow.name} {follow.seen[:8]}".strip(),
        "refused": follow.refused,
        "failing since": f"{out.when(follow.failing)} ({follow.times} times)" if follow.failing else "",
        "reason": follow.reason,
    }


def main(word: str) -> int:
    """Started by an app's timer (templates/systemd/look.timer.j2): `word` is the app's name as in its unit's name."""
    by_itself(Layout(), names.app_name(word.replace("_", "-")), "git:sync", "timer")
    return 0


def by_itself(layout: Layout, app: AppName, name: str, where: str = "", *, waits: bool = False) -> int:
    """Look, and put a new commit live, while no user waits; returns the exit code of its verdict.

    `name` and `where` say in the log who asked, and from where. A failure that was reported before is not repeated.
    """
    from receiver.story.pull import Pull

    caller, audit = Caller(name, "", Role.DEPLOY, (app,)), Audit(where or name)
    pull, code = None, 70
    try:
        known = settings.load(layout.settings)
        # Data from another machine may use as much memory as a push, and no more.
        limit_memory(known.push_memory)
        pull = Pull(layout, open_app(layout, app), known, caller, asked=False)
        code = pull.look(waits=waits)
    except Failure as failure:
        code = failure.exit_code
        if pull is None or not pull.told:
            print_told(failure)
    except Exception as error:  # noqa: BLE001 - it goes to the journal, for an administrator
        audit.bug(error)
    finally:
        audit.end(caller, name, "git:sync", code)
    return code
