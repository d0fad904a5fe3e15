"""The command line, on the server and over ssh: `shipit VERB APP`; one file for each noun, loaded when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from receiver import here, settings
from receiver.caller import Caller, Role
from receiver.cli.outcome import outcome
from receiver.errors import Failure, Rejected, sick_disk
from receiver.gate.keys import LOCAL_ADMIN
from receiver.paths import SHIPIT_USER, Layout
from receiver.system.told import told

if TYPE_CHECKING:
    from receiver.root.client import Agent

# command → (module below receiver.cli, function, the least role that may call it), in the order of `shipit --help`.
COMMANDS: dict[str, tuple[str, str, Role]] = {
    "apps:create": ("apps", "create", Role.ADMIN),
    "apps:list": ("apps", "list_apps", Role.VIEW),
    "apps:destroy": ("apps", "destroy", Role.ADMIN),
    "apps:exists": ("apps", "exists", Role.VIEW),
    "apps:lock": ("apps", "lock", Role.DEPLOY),
    "apps:unlock": ("apps", "unlock", Role.DEPLOY),
    "git:set": ("apps", "git_set", Role.ADMIN),
    "git:sync": ("pull", "sync", Role.DEPLOY),
    "git:report": ("pull", "report", Role.VIEW),
    "git:generate-deploy-key": ("access", "generate_key", Role.DEPLOY),
    "git:public-key": ("access", "public_key", Role.VIEW),
    "git:auth": ("access", "auth", Role.DEPLOY),
    "git:allow-host": ("access", "allow_host", Role.DEPLOY),
    "git:allow-signers": ("access", "allow_signers", Role.ADMIN),
    "status": ("status", "status", Role.VIEW),
    "releases": ("releases", "list_releases", Role.VIEW),
    "releases:info": ("releases", "info", Role.VIEW),
    "releases:output": ("releases", "output", Role.VIEW),
    "releases:diff": ("across", "diff", Role.VIEW),
    "releases:sbom": ("across", "sbom", Role.VIEW),
    "releases:provenance": ("across", "provenance", Role.VIEW),
    "releases:export": ("across", "export", Role.VIEW),
    "releases:pin": ("releases", "pin", Role.DEPLOY),
    "releases:unpin": ("releases", "unpin", Role.DEPLOY),
    "rollback": ("releases", "rollback", Role.DEPLOY),
    "deploy": ("deploy", "deploy", Role.DEPLOY),
    "git:from-archive": ("deploy", "from_archive", Role.DEPLOY),
    "git:from-image": ("deploy", "from_image", Role.DEPLOY),
    "registry:login": ("registry", "login", Role.DEPLOY),
    "registry:logout": ("registry", "logout", Role.DEPLOY),
    "registry:allow": ("registry", "allow", Role.ADMIN),
    "images:layers": ("registry", "layers", Role.DEPLOY),
    "images:add": ("registry", "add", Role.DEPLOY),
    "cancel": ("releases", "cancel", Role.DEPLOY),
    "builds:cache-clear": ("releases", "cache_clear", Role.DEPLOY),
    "config:show": ("config", "show", Role.DEPLOY),
    "config:get": ("config", "get", Role.DEPLOY),
    "config:set": ("config", "set_vars", Role.DEPLOY),
    "config:unset": ("config", "unset_vars", Role.DEPLOY),
    "config:keys": ("config", "keys", Role.VIEW),
    "ps": ("ps", "processes", Role.VIEW),
    "ps:scale": ("ps", "scale", Role.DEPLOY),
    "ps:restart": ("ps", "restart", Role.DEPLOY),
    "ps:stop": ("ps", "stop", Role.DEPLOY),
    "ps:start": ("ps", "start", Role.DEPLOY),
    "maintenance:enable": ("maintenance", "enable", Role.DEPLOY),
    "maintenance:disable": ("maintenance", "disable", Role.DEPLOY),
    "logs": ("logs", "show", Role.VIEW),
    "run": ("run", "run_command", Role.DEPLOY),
    "storage:mount": ("storage", "mount", Role.DEPLOY),
    "storage:unmount": ("storage", "unmount", Role.DEPLOY),
    "storage:quota": ("storage", "set_quota", Role.VIEW),
    "storage:list": ("storage", "list_mounts", Role.VIEW),
    "apt:allow": ("apt", "allow", Role.ADMIN),
    "apt:report": ("apt", "report", Role.VIEW),
    "containers:setup": ("containers", "setup", Role.ADMIN),
    "cron:list": ("cron", "list_cron", Role.VIEW),
    "cron:run": ("cron", "run_now", Role.DEPLOY),
    "cron:suspend": ("cron", "suspend", Role.DEPLOY),
    "cron:resume": ("cron", "resume", Role.DEPLOY),
    "resource:limit": ("resource", "limit", Role.DEPLOY),
    "resource:report": ("resource", "report", Role.VIEW),
    "notify:test": ("notify", "test", Role.DEPLOY),
    "domains:add": ("domains", "add", Role.ADMIN),
    "domains:remove": ("domains", "remove", Role.ADMIN),
    "domains:list": ("domains", "list_domains", Role.VIEW),
    "auth:set": ("auth", "set_password", Role.DEPLOY),
    "auth:remove": ("auth", "remove", Role.DEPLOY),
    "auth:list": ("auth", "list_visitors", Role.DEPLOY),
    "nginx:set": ("snippet", "set_lines", Role.ADMIN),
    "nginx:unset": ("snippet", "unset_lines", Role.ADMIN),
    "nginx:show": ("snippet", "show", Role.VIEW),
    "tls:enable": ("tls", "enable", Role.ADMIN),
    "tls:disable": ("tls", "disable", Role.ADMIN),
    "tls:report": ("tls", "report", Role.VIEW),
    "tls:renew": ("tls", "renew", Role.ADMIN),
    "certs:add": ("certs", "add", Role.ADMIN),
    "certs:show": ("certs", "show", Role.VIEW),
    "certs:remove": ("certs", "remove", Role.ADMIN),
    "ssh-keys:add": ("keys", "add", Role.ADMIN),
    "ssh-keys:list": ("keys", "list_keys", Role.ADMIN),
    "ssh-keys:remove": ("keys", "remove", Role.ADMIN),
    "init": ("init", "init", Role.VIEW),
    "check": ("check", "check", Role.VIEW),
    "plan": ("plan", "plan", Role.VIEW),
    "doctor": ("doctor", "doctor", Role.ADMIN),
    "version": ("status", "version", Role.VIEW),
}
ALIASES = {
    "apps": "apps:list", "destroy": "apps:destroy", "config": "config:show", "restart": "ps:restart",
    "scale": "ps:scale", "stop": "ps:stop", "start": "ps:start", "domains": "domains:list", "storage": "storage:list",
    "cron": "cron:list", "ssh-keys": "ssh-keys:list", "keys": "ssh-keys:list", "releases:rollback": "rollback",
    "maintenance:on": "maintenance:enable", "maintenance:off": "maintenance:disable",
    "letsencrypt:enable": "tls:enable", "letsencrypt:disable": "tls:disable", "letsencrypt:list": "tls:report",
    "tls": "tls:report", "letsencrypt:auto-renew": "tls:renew", "certs:report": "certs:show", "certs": "certs:show",
    "certs:update": "certs:add", "ps:rebuild": "deploy", "builds:cancel": "cancel", "releases:list": "releases",
}  # fmt: skip
# These need no server, or must run as root on it.
ANYWHERE = frozenset({"check", "init", "version"})
AS_ROOT = frozenset({"doctor", "certs:add", "apt:allow"})
PR_SET_DUMPABLE = 4  # prctl(2)


@dataclass(frozen=True)
class Context:
    """What every command gets: the paths, the server's settings, and the caller."""

    caller: Caller
    layout: Layout = field(default_factory=Layout)

    def connect_agent(self) -> Agent:
        """A connection to the agent. Raises HostFault."""
        from receiver.root.client import Agent

        return Agent.connect(self.layout.agent_socket)

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
        module, function, _ = COMMANDS[name]
        command = getattr(importlib.import_module(f"receiver.cli.{module}"), function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and name not in ALIASES and not name.startswith("-"):
            from receiver.cli.suggest import instead

            raise Rejected(f"There is no command {name!a}.", hint=instead(name, list(COMMANDS), ALIASES))
        if isinstance(ctx.obj, Context):
            ctx.obj.caller.require(COMMANDS[ALIASES.get(name, name)][2])
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


def run(
    words: Sequence[str],
    caller: Caller,
    layout: Layout = Layout(),  # noqa: B008
    app: str = "",
) -> int:
    """Run one command for `caller`, already authorised; returns its exit code. Failures are printed, never raised.

    `app`: the app for a command that takes one, if its words do not begin with one.
    """
    given = with_app(list(words), app)

    def hint(error: click.UsageError, usage: str) -> str:
        if given != list(words) and "extra argument" in error.message:
            return f"It was asked of the app {app}. Of another one: shipit --app NAME {words[0]}    {usage}"
        return usage

    try:
        return outcome(shipit, given, Context(caller, layout), hint)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        full = sick_disk(error)
        if full is None:
            raise
        return told(full)
    finally:
        flush()


def with_app(words: list[str], app: str) -> list[str]:
    """The words with the app inserted, for a command that takes one: `logs -t` → `logs blog -t`."""
    name = words[0] if words else ""
    if not app or (command := shipit.get_command(click.Context(shipit), name)) is None:
        return words
    first = next((param for param in command.params if isinstance(param, click.Argument)), None)
    if first is None or first.name != "app" or first_of(command, words[1:]) == app:
        return words
    return [name, app, *words[1:]]


def first_of(command: click.Command, words: list[str]) -> str:
    """The first word that is neither an option nor an option's value, "" if there is none."""
    takes = {opt for param in command.params if isinstance(param, click.Option) and not param.is_flag
             for opt in param.opts}  # fmt: skip
    is_value = False
    for word in words:
        if not is_value and (word == "-" or not word.startswith("-")):
            return word
        is_value = not is_value and word in takes
    return ""


def flush() -> None:
    """Write out buffered output; it is no error if the reader is gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The `shipit` program on the server: root becomes the user `shipit`; other users are told what to do."""
    words = sys.argv[1:]
    name = ALIASES.get(words[0], words[0]) if words else ""
    if os.environ.get("_SHIPIT_COMPLETE") or name in ANYWHERE or not name or name.startswith("-"):
        raise SystemExit(
            shipit.main(words, "shipit") if "_SHIPIT_COMPLETE" in os.environ else run(words or ["-h"], LOCAL_ADMIN)
        )
    with suppress(Failure):  # a command that needs the settings reports the error
        known = settings.load(Layout().settings)
        here.say_where(SHIPIT_USER, here.address(known.domain, ""), known.ssh_port, remote=False)
    if name in ("config:set", "git:auth"):
        # A worker that is forked from here shows our command line for as long as it runs.
        from receiver.system.argv import hide_words

        hide_words(len(sys.orig_argv) - len(words) + 2)
    if os.geteuid() == 0 and name not in AS_ROOT:
        become_shipit()
    elif os.geteuid() != 0:
        sudo = "/usr/bin/sudo"
        if os.access(sudo, os.X_OK):
            os.execv(sudo, [sudo, "--", sys.argv[0], *words])
        raise SystemExit(
            told(Rejected("shipit on the server is for root.", hint=f"Become root: su -\nor: ssh HOST {name}"))
        )
    raise SystemExit(run(words, LOCAL_ADMIN))


def become_shipit() -> None:
    """Become the user `shipit` for good: the CLI has the same rights on the server as over ssh."""
    import ctypes
    import pwd

    try:
        user = pwd.getpwnam(SHIPIT_USER)
    except KeyError:
        raise SystemExit(told(Rejected("This machine is not a receiver.", hint="Make it one: ./install.sh"))) from None
    os.initgroups(SHIPIT_USER, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    # Otherwise /proc/self stays root's (proc(5)), and a worker could not list its descriptors.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    os.umask(0o027)
    os.chdir("/")
    os.environ["HOME"] = user.pw_dir
