"""The command line, on the server and over ssh: `shipit VERB APP`, one file a noun, loaded when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from receiver import settings
from receiver.errors import Failure, Rejected
from receiver.host.keys import ROOT, Caller
from receiver.paths import SHIPIT_USER, Layout

# command → (module below receiver.cli, function). The order is the order of `shipit --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "apps:create": ("apps", "create"),
    "apps:list": ("apps", "list_apps"),
    "apps:destroy": ("apps", "destroy"),
    "apps:exists": ("apps", "exists"),
    "apps:lock": ("apps", "lock"),
    "apps:unlock": ("apps", "unlock"),
    "git:set": ("apps", "git_set"),
    "status": ("status", "status"),
    "releases": ("releases", "list_releases"),
    "releases:info": ("releases", "info"),
    "releases:output": ("releases", "output"),
    "releases:pin": ("releases", "pin"),
    "releases:unpin": ("releases", "unpin"),
    "rollback": ("releases", "rollback"),
    "deploy": ("releases", "deploy"),
    "cancel": ("releases", "cancel"),
    "config:show": ("config", "show"),
    "config:get": ("config", "get"),
    "config:set": ("config", "set_vars"),
    "config:unset": ("config", "unset_vars"),
    "config:keys": ("config", "keys"),
    "ps": ("ps", "processes"),
    "ps:scale": ("ps", "scale"),
    "ps:restart": ("ps", "restart"),
    "ps:stop": ("ps", "stop"),
    "ps:start": ("ps", "start"),
    "logs": ("logs", "show"),
    "run": ("run", "run_command"),
    "domains:add": ("domains", "add"),
    "domains:remove": ("domains", "remove"),
    "domains:list": ("domains", "list_domains"),
    "ssh-keys:add": ("keys", "add"),
    "ssh-keys:list": ("keys", "list_keys"),
    "ssh-keys:remove": ("keys", "remove"),
    "check": ("check", "check"),
    "plan": ("plan", "plan"),
    "doctor": ("doctor", "doctor"),
    "version": ("status", "version"),
}
ALIASES = {
    "apps": "apps:list", "destroy": "apps:destroy", "config": "config:show", "restart": "ps:restart",
    "scale": "ps:scale", "stop": "ps:stop", "start": "ps:start", "domains": "domains:list",
    "ssh-keys": "ssh-keys:list", "keys": "ssh-keys:list", "releases:rollback": "rollback",
    "ps:rebuild": "deploy", "builds:cancel": "cancel", "releases:list": "releases",
}  # fmt: skip
# These need no server, or need to be root on it.
ANYWHERE = frozenset({"check", "version"})
AS_ROOT = frozenset({"doctor"})


@dataclass(frozen=True)
class Context:
    """What every command gets: where things are, the server's settings, and who asks."""

    caller: Caller
    layout: Layout = field(default_factory=Layout)

    @property
    def settings(self) -> settings.Settings:
        return settings.load(self.layout.settings)


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name]
        command = getattr(importlib.import_module(f"receiver.cli.{module}"), function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and name not in ALIASES and not name.startswith("-"):
            near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], 1)
            raise Rejected(
                f"There is no command {ascii(name)}.",
                hint=f"Did you mean: shipit {near[0]}" if near else "All commands: shipit --help",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in COMMANDS:
            command = self.get_command(ctx, name)
            rows.append((name, command.get_short_help_str(80) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def shipit() -> None:
    """Everything that can be shipped becomes a numbered release.

    \b
    Examples:
      git push prod main                     put a commit live
      ssh prod shipit releases blog          what was live, when, by whom
      ssh prod shipit rollback blog          bring the previous release back
      ssh prod shipit config:set blog KEY=value
    """


def run(words: Sequence[str], caller: Caller) -> int:
    """Run one command for `caller`, already authorised; returns its exit code. Failures are printed, never raised."""
    try:
        result = shipit.main(list(words), "shipit", standalone_mode=False, obj=Context(caller))
        return result if isinstance(result, int) else 0
    except Failure as failure:
        print_failure(failure)
        return failure.exit_code
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.exceptions.Abort:
        sys.stderr.write("\n")
        return 130
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        flush()


def flush() -> None:
    """Write out what is buffered; a reader that went away is no error of ours."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_failure(failure: Failure) -> None:
    """` !     ` before each line, red on a terminal, on standard error."""
    sys.stdout.flush()
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    for line in failure.lines():
        sys.stderr.write(f"{red} !     {plain}{line}\n")


def main() -> None:
    """The `shipit` program on the server: root acts as the `shipit` user, any other user is told how."""
    words = sys.argv[1:]
    name = ALIASES.get(words[0], words[0]) if words else ""
    if os.environ.get("_SHIPIT_COMPLETE") or name in ANYWHERE or not name or name.startswith("-"):
        raise SystemExit(shipit.main(words, "shipit") if "_SHIPIT_COMPLETE" in os.environ else run(words or ["-h"], ROOT))
    if os.geteuid() == 0 and name not in AS_ROOT:
        become_shipit()
    elif os.geteuid() != 0:
        print_failure(
            Rejected(
                "shipit on the server is for root.", hint=f"sudo shipit {' '.join(words)}\nor: ssh shipit@HOST {name}"
            )
        )
        raise SystemExit(2)
    raise SystemExit(run(words, ROOT))


def become_shipit() -> None:
    """Give up root for the `shipit` user: the CLI has no more rights on the server than over ssh."""
    import pwd

    try:
        user = pwd.getpwnam(SHIPIT_USER)
    except KeyError:
        print_failure(Rejected("This machine is not a receiver.", hint="Make it one: sudo ./install.sh"))
        raise SystemExit(2) from None
    os.initgroups(SHIPIT_USER, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.umask(0o027)
    os.chdir("/")
    os.environ["HOME"] = user.pw_dir
