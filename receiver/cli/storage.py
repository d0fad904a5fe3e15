"""`storage:*`: mounts the app's data in its releases, for code that writes beside itself; and limits the data's
size."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace

import click

from receiver import names
from receiver.caller import Role
from receiver.cli import out
from receiver.cli.args import Name, app_argument, json_option, ledger_of
from receiver.cli.args import change as state_change
from receiver.cli.main import Context
from receiver.cli.ps import submit_with
from receiver.errors import NotFound, Rejected
from receiver.here import typed
from receiver.ledger.ledger import Ledger
from receiver.model import Change
from receiver.names import AppName
from receiver.ops import quota
from receiver.root.oneoff import written
from receiver.runtimes.all import RUNTIMES
from receiver.story import storage
from receiver.story.submit import Submission

MOUNT = Name("mount", names.mount)
PLACE = Name("place", names.slug_path)
Mounts = tuple[tuple[str, str], ...]


@click.command()
@app_argument
@click.argument("what", type=MOUNT, metavar="DATA[:PLACE]")
@click.pass_obj
def mount(ctx: Context, app: AppName, what: tuple[str, str]) -> int:
    """Link a place of the app's releases to a path of its data; the live commit is built again with the link.

    What ends in .db, .sqlite, .sqlite3, .json, .yml, .yaml, .ini, .log or .txt is a file, anything else a directory,
    which is made.

    \b
    Examples:
      shipit storage:mount blog uploads:public/uploads
      shipit storage:mount blog db.sqlite3
    """
    ledger = ledger_of(ctx, app)
    data, place = what
    if made := next((made for runtime in RUNTIMES for made in runtime.makes if f"{place}/".startswith(f"{made}/")), ""):
        raise Rejected(f"{made} is made by the build.", hint="Choose another place.")

    def with_it(before: Mounts) -> Mounts:
        around = [other for _, other in before if other.startswith(f"{place}/") or place.startswith(f"{other}/")]
        if around:
            raise Rejected(
                f"{place} and {around[0]} lie in one another.", hint=f"shipit storage:unmount {app} {around[0]}"
            )
        return tuple(sorted([(data, place), *(pair for pair in before if pair[1] != place)]))

    return change(ctx, ledger, with_it, f"mount {data}:{place}")


@click.command()
@app_argument
@click.argument("place", type=PLACE)
@click.pass_obj
def unmount(ctx: Context, app: AppName, place: str) -> int:
    """Remove such a link from the app's next releases; the data itself stays."""
    ledger = ledger_of(ctx, app)

    def without(before: Mounts) -> Mounts:
        after = tuple(pair for pair in before if pair[1] != place)
        if after == before:
            current = ledger.current()
            said = current is not None and place in [other for _, other in current.storage]
            raise NotFound(
                f"Nothing is mounted at {place}." if not said else f"The app's own shipit.yml mounts {place}.",
                hint=f"See what is: shipit storage:list {app}",
            )
        return after

    return change(ctx, ledger, without, f"unmount {place}")


def change(ctx: Context, ledger: Ledger, new: Callable[[Mounts], Mounts], message: str) -> int:
    """Record the mounts and build the live commit again with them; undone if that does not go live.

    `new` is called twice: first without waiting, so that a mistake is refused at once, then in the app's turn."""
    if new(ledger.state().storage) == ledger.state().storage:
        out.say("Nothing changes: it is so already.")
        return 0
    with Submission(ctx.layout, ledger, ctx.caller) as submission:
        storage = new(ledger.state().storage)
        current = ledger.current()
        if current is None or current.origin is None:
            ledger.change_state(lambda state: replace(state, storage=storage))
            out.say(f"Kept for the first push of {ledger.app}.")
            return 0
        values = {"builds": True, "message": message, "origin": current.origin}
        return submit_with(submission, lambda state: replace(state, storage=storage), Change.REBUILD, None, values)


@click.command()
@app_argument
@click.argument("size", required=False)
@json_option
@click.pass_obj
def set_quota(ctx: Context, app: AppName, size: str | None, form: str) -> None:
    """Say how much the app's data may take (an admin may), or see what it takes of that.

    The data is measured, not cut off: beyond 80 % pushes, `doctor` and notifications say so.

    \b
    Examples:
      shipit storage:quota blog 5G
      shipit storage:quota blog none       whatever there is
      shipit storage:quota blog default    as the server's settings say
    """
    ledger = ledger_of(ctx, app)
    if size is not None:
        ctx.caller.require(Role.ADMIN, app)
        wish = quota.parse(size)
        state_change(ledger, lambda state: replace(state, quota=wish))
    state = ledger.state()
    most = quota.of(state, ctx.settings)
    with ctx.connect_agent() as agent:
        used = storage.measure(ledger, agent, most).used
    shown = {
        "app": app,
        "quota": quota.size(most * quota.MIB) if most else quota.NONE,
        "said by": "the server's settings" if state.quota is None else "storage:quota",
        "used": quota.size(used),
        "bytes": used,
        "percent": quota.percent(used, most) if most else None,
        "level": quota.level(used, most).value,
    }
    if form == "json":
        out.show_json(shown)
        return
    out.say(
        f"{quota.sentence(app, used, most)}."
        if most
        else f"The data of {app} takes {quota.size(used)}, and has no quota."
    )
    if quota.level(used, most) is not quota.Level.WELL:
        out.say(typed(quota.hint(app)))


@click.command()
@app_argument
@json_option
@click.pass_obj
def list_mounts(ctx: Context, app: AppName, form: str) -> None:
    """List what is mounted, how large it and all of the app's data are, and how large that may be."""
    ledger = ledger_of(ctx, app)
    state, current = ledger.state(), ledger.current()
    most = quota.of(state, ctx.settings)
    mounted = dict.fromkeys(state.storage, "for the next release")
    mounted |= dict.fromkeys(current.storage if current else (), "live")
    sizes = sizes_of(ctx, ledger, [data for data, _ in mounted])
    rows = [{"data": data, "place": place, "size": sizes.get(data, ""), "quota": "", "state": mounted[data, place]}
            for data, place in sorted(mounted)]  # fmt: skip
    with ctx.connect_agent() as agent:
        used = storage.measure(ledger, agent, most).used
    rows.append(
        {"data": ".", "place": "$DATA_DIR", "size": quota.size(used),
         "quota": f"{quota.size(most * quota.MIB)} ({quota.percent(used, most)} %)" if most else "",
         "state": "live" if current else ""}
    )  # fmt: skip
    if form == "json":
        out.show_json(rows)
        return
    heads = {"data": "DATA", "place": "PLACE", "size": "SIZE", **({"quota": "OF"} if most else {}), "state": "STATE"}
    out.table(rows, heads, empty="")
    if not mounted:
        out.say(typed(f"Nothing is mounted. Mount something: shipit storage:mount {app} uploads"))


def sizes_of(ctx: Context, ledger: Ledger, paths: list[str]) -> dict[str, str]:
    """The sizes of these paths of the app's data. Only the app's user may look, so a one-off command asks; empty if the
    app has no release yet."""
    current = ledger.current()
    if current is None or not current.slug or not paths:
        return {}
    words = shlex.join(dict.fromkeys(paths))
    line = f'cd "$DATA_DIR" && for p in {words}; do du -shD -- "$p" 2>/dev/null || printf "0\\t%s\\n" "$p"; done'
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        with written(ledger.paths, line) as run_id, ctx.connect_agent() as agent:
            # The output is a few lines, which fit into the pipe's buffer.
            agent.run(ledger.app, current.number, run_id, (null, writer, null), tty=False)
        os.close(writer)
        writer = -1
        with open(reader, "rb", closefd=False) as told:
            lines = told.read(2**16).decode(errors="replace").splitlines()
    finally:
        for fd in (reader, writer, null):
            if fd >= 0:
                os.close(fd)
    return {name: size for size, tab, name in (line.partition("\t") for line in lines) if tab}
