"""The git services: a push, which holds the app's turn, and a fetch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.caller import Caller, Role
from receiver.errors import Failure, NotFound
from receiver.gate.hookline import HookLine
from receiver.gate.unpacking import Trace
from receiver.ledger.ledger import Ledger
from receiver.ledger.queue import Turn, queued
from receiver.ledger.tickets import somebody_waits
from receiver.model import AppState, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.sources.git.repository import Git, environment
from receiver.sources.git.source import last_pushed
from receiver.system.run import Program, start

if TYPE_CHECKING:
    from receiver.gate.hook import Hooks

# Seconds a client may take to send its objects; then git is ended, so that a silent client cannot hold an app's turn.
UPLOAD_LIMIT = 3600.0
# From this many packs on (each push makes one) they are packed together, after the push.
MANY_PACKS = 50

HIDDEN = {"transfer.hideRefs": "refs/shipit"}


def upload(layout: Layout, app: AppName, caller: Caller) -> int:
    """Serve a fetch or clone; returns git's exit code."""
    caller.require(Role.VIEW, app)
    ledger = Ledger(layout.app(app))
    ledger.state()
    argv = ["git", "upload-pack", "--strict", "--timeout=600", str(ledger.paths.repo)]
    return _code(start(argv, env=environment(HIDDEN), stdin=0).wait())


def receive(layout: Layout, app: AppName, caller: Caller, settings: Settings, hooks: Path) -> int:
    """Serve a push; returns 0 if its commit is live (or there is nothing to deploy), else not 0.

    Waits for the app's turn and holds it until the release is decided; then the branch is at the live commit again.
    """
    caller.require(Role.DEPLOY, app)
    with ExitStack() as stack:
        line = stack.enter_context(HookLine.made())
        trace = stack.enter_context(Trace.made())
        # At the latest now, so that the agent starts while git works.
        agent = stack.enter_context(Agent.connect(layout.agent_socket))
        new = not Ledger(layout.app(app)).exists()
        ledger = existing(layout, app, settings, agent)
        git = Git(ledger.paths.repo)
        turn = stack.enter_context(in_turn(ledger, caller, agent))
        put_back(ledger, git)
        child = start(
            ["git", "receive-pack", str(ledger.paths.repo)],
            env=environment(receive_config(settings, hooks), {**line.environment(), **trace.environment()}),
            stdin=0,
            pass_fds=(*line.theirs, turn.fd),
        )
        # Imported while git talks to the client: hooks and worker will need it.
        from receiver.gate.hook import Hooks

        answers = Hooks(layout, ledger, settings, caller, agent)
        code, asked = serve_hooks(child, line, answers)
        if not asked and (refusal := trace.refusal(settings.max_push, settings.push_memory)):
            told(refusal)
            code = code or refusal.exit_code
        try:
            put_back(ledger, git)
            tidy(git)
        except Failure as failure:
            # git's client has its answer already and takes no other.
            told(failure)
            return code or failure.exit_code
        release = answers.release
        if new and release is None:
            unmake(ledger, agent)
        return code if code or release is None or release.status is Status.LIVE else 1


@contextmanager
def in_turn(ledger: Ledger, caller: Caller, agent: Agent) -> Iterator[Turn]:
    """Hold the app's turn, for what arrives over ssh, for the block."""

    def waiting(told: str) -> None:
        # Close it while waiting: each of many waiting pushes would keep an agent busy.
        agent.close()
        tell(told)

    with queued(ledger, caller.name, push=True, say=waiting, client=0) as turn:
        agent.reopen()
        yield turn


def serve_hooks(child: Program, line: HookLine, answers: Hooks) -> tuple[int, bool]:
    """Answer the hooks until git has ended; returns its exit code, and whether any hook asked. An upload that takes too
    long is ended."""
    line.give_away()
    limit = time.monotonic() + UPLOAD_LIMIT
    asked = False
    while True:
        question = line.question(None if asked else 10.0)
        if question is not None:
            asked = True
            line.reply(answers.answer(*question))
        elif line.ended:
            return _code(child.wait()), asked
        elif not asked and time.monotonic() > limit:
            child.terminate()
            tell(f"The push took longer than {UPLOAD_LIMIT / 60:.0f} minutes and was ended.")


def receive_config(settings: Settings, hooks: Path) -> dict[str, str]:
    """The git-config(1) for one receive-pack; none of it is in a file that a user could change."""
    return {
        **HIDDEN,
        "core.hooksPath": str(hooks),
        "receive.fsckObjects": "true",
        "receive.maxInputSize": str(settings.max_push * 2**20),
        "receive.shallowUpdate": "true",
        "receive.advertisePushOptions": "true",
        "receive.autogc": "false",
        # Our hook decides this, by the app's settings.
        "receive.denyDeletes": "false",
        "receive.denyNonFastForwards": "false",
        "receive.denyDeleteCurrent": "ignore",
        # Always keep the pack: git syncs a pack to disk as a whole, and loose objects not at all by default.
        "receive.unpackLimit": "1",
    }


def existing(layout: Layout, app: AppName, settings: Settings, agent: Agent) -> Ledger:
    """The app's ledger; the first push makes the app if the server allows that."""
    ledger = Ledger(layout.app(app))
    if ledger.exists():
        return ledger
    if not settings.create_on_push:
        raise NotFound(f"There is no app {app!r}.", hint=f"An admin makes it: shipit apps:create {app}")
    from receiver.story.create import create_app

    tell(f"Creating {app}")
    create_app(layout, app, agent, settings)
    return ledger


def unmake(ledger: Ledger, agent: Agent) -> None:
    """Destroy an app that was made for a push of which nothing was taken (a mistyped name, perhaps). The caller holds
    its turn. Keeps the app if another process waits for its turn, or if a setting of it was changed meanwhile."""
    state = ledger.state()
    untouched = AppState(app=ledger.app, created=state.created, format=state.format)
    stored = Git(ledger.paths.repo).run("for-each-ref", "--count=1").out
    if state == untouched and not stored and not ledger.numbers() and not somebody_waits(ledger.paths.queue):
        with suppress(Failure):  # then an app without a release is left, and `apps` shows it as that
            agent.reopen()
            agent.destroy_app(ledger.app)
            tell(f"Nothing was taken, so {ledger.app} is not there again")


def put_back(ledger: Ledger, git: Git) -> None:
    """Put the deploy branch at the last commit that was pushed and went live, so that any commit can be pushed next."""
    branch = ledger.state().branch
    if branch is None:
        return
    git.put_back(branch, last_pushed(ledger))


def tidy(git: Git) -> None:
    """Remove what a killed push left; if there are many packs, start packing the repository in the background."""
    git.sweep()
    if git.packs() >= MANY_PACKS:
        null = os.open(os.devnull, os.O_WRONLY)
        start(git.argv("gc", "--quiet"), env=git.env, stdout=null, stderr=null)
        os.close(null)


def tell(line: str) -> None:
    """A line for the pusher, over ssh's own standard error."""
    with suppress(OSError):
        sys.stderr.write(f"-----> {line}\n")
        sys.stderr.flush()


def told(failure: Failure) -> None:
    with suppress(OSError):
        for line in failure.lines():
            sys.stderr.write(f" !     {line}\n")
        sys.stderr.flush()


def _code(returned: int) -> int:
    return returned if returned >= 0 else 128 - returned
