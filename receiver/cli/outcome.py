"""Runs a click command and handles its errors: with the same exit codes and messages on the server and on a laptop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from receiver.errors import Failure, Rejected
from receiver.system.told import told


def outcome(
    commands: click.Command,
    words: Sequence[str],
    obj: object,
    hint: Callable[[click.UsageError, str], str] = lambda error, usage: usage,
) -> int:
    """Run the command that these words name; returns its exit code. Failures are printed.

    `hint` says what to type next after a mistake in the words, given how the command is used.
    """
    try:
        result = commands.main(list(words), "shipit", standalone_mode=False, obj=obj)
        return result if isinstance(result, int) else 0
    except Failure as failure:
        return told(failure)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.exceptions.Abort:
        sys.stderr.write("\n")
        return 130
    except click.UsageError as error:
        usage = f"How it is used: {error.ctx.command_path if error.ctx else 'shipit'} --help"
        return told(Rejected(error.format_message(), hint=hint(error, usage)))
