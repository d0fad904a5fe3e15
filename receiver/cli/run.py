"""`run`: a one-off command in the live release, with its config vars, as the app's own user."""

from __future__ import annotations

import os
import select
import shlex
import sys
import threading

import click

from receiver.cli.args import app_argument, ledger_of
from receiver.cli.main import Context
from receiver.errors import Rejected
from receiver.names import AppName
from receiver.root.client import Agent
from receiver.root.oneoff import written


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@app_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run_command(ctx: Context, app: AppName, command: tuple[str, ...]) -> int:
    """Run a command as the app, and exit with its exit code. With `ssh -t` it has a terminal.

    \b
    Examples:
      shipit run blog python manage.py migrate
      ssh -t prod shipit run blog python
    """
    ledger = ledger_of(ctx, app)
    current = ledger.current()
    if current is None or not current.slug:
        raise Rejected(f"{app} has no release to run in yet.", hint=f"Push one: git push HOST:{app} main")
    command = command[1:] if command[0] == "--" else command
    if not command or command[0].startswith("-"):
        example = shlex.join(["bash", *command]) if command else "bash"
        raise Rejected(f"{' '.join(command)[:40]!a} is no command.", hint=f"shipit run {app} {example}")
    # A single word is a line for the shell, as it was typed; several words stay separate arguments.
    line = command[0] if len(command) == 1 else shlex.join(command)
    with written(ledger.paths, line) as run_id, ctx.connect_agent() as agent:
        sys.stdout.flush()
        end_with_reader(agent)
        return agent.run(app, current.number, run_id, (0, 1, 2), tty=os.isatty(0) and os.isatty(1))


def end_with_reader(agent: Agent) -> None:
    """Close the connection to the agent, which ends the command, as soon as nobody can read its output any more.

    No signal tells this process that the client is gone: sshd only closes its end of the pipes.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(1, 0)
        poll.poll()
        agent.hang_up()

    threading.Thread(target=watch, daemon=True).start()
