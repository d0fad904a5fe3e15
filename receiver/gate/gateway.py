"""The forced command of every key: `libexec/gateway NAME FINGERPRINT`. The arguments say whose key logged in;
SSH_ORIGINAL_COMMAND says what that person wants. Nothing else that a client sends is trusted.

It imports little before it knows the request: the user waits for every millisecond.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from receiver import here, settings
from receiver.caller import Caller
from receiver.errors import Denied, Failure, HostFault, sick_disk
from receiver.gate import rsync, sessions
from receiver.gate.ask import key_of
from receiver.gate.keys import Keyring
from receiver.gate.request import CliRequest, GitRequest, Greeting, Request, Service, parse
from receiver.gate.rsync import RsyncRequest
from receiver.paths import SHIPIT_USER, Layout, share
from receiver.system.audit import Audit, where
from receiver.system.limits import limit_memory

# For the fault tests (story/checkpoint.py). No client can set these through sshd; root can, in /etc/environment.
FAULTS = ("SHIPIT_DIE_AT", "SHIPIT_STOP_AT")
TOO_LARGE = HostFault(
    "This needs more memory than one command may take.",
    holds="What is live was not touched.",
    hint="The server's administrator can raise push_memory in /etc/shipit/shipit.yml.",
)


def main() -> int:
    """Serve one request of the key that the arguments name; returns the exit code for sshd."""
    return serve(Layout(), key_of(sys.argv[1:]), share("hooks"), os.getpid())


def serve(layout: Layout, key: Sequence[str], hooks: Path, asker: int) -> int:
    """As `main`, below a given root. `asker` is the process that sshd started."""
    os.umask(0o027)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    command = os.environb.get(b"SSH_ORIGINAL_COMMAND")
    audit = Audit(os.environ.get("SSH_CONNECTION", "").split(" ")[0])
    # Programs that we start get an environment of their own; this is for code in our process (time zones, locales).
    home = str(layout.home)
    connection = os.environ.get("SSH_CONNECTION", "")
    faults = {name: os.environ[name] for name in FAULTS if name in os.environ}
    os.environ.clear()
    os.environ.update(PATH="/usr/bin:/bin", HOME=home, LANG="C.UTF-8", **faults)
    with suppress(Failure):  # if the settings cannot be read, whoever needs them raises this again
        known = settings.load(layout.settings)
        here.say_where(SHIPIT_USER, here.address(known.domain, connection), known.ssh_port, remote=True)
    name, fingerprint = key if len(key) == 2 else ("", "")
    caller: Caller | None = None
    verb, code = "refused", 1
    request: Request = Greeting()
    # Before reading anything that a client sends; the programs started from here on have the limit, too.
    limit_memory(settings.Settings.push_memory)
    try:
        if not name:
            raise Denied("There is no shell here, and no way in but a key that shipit knows.")
        caller = Keyring(layout).caller(name, fingerprint)
        request = parse(command)
        verb = _verb(request)
        sessions.take(layout, caller, asker)
        code = _answer(layout, request, caller, hooks)
    except Failure as failure:
        code = failure.exit_code
        _refuse(failure, git=(command or b"").startswith((b"git-receive-pack ", b"git-upload-pack ")))
    except MemoryError:
        code = TOO_LARGE.exit_code
        _refuse(TOO_LARGE, git=False)
    except Exception as error:  # noqa: BLE001 - a caller never sees a traceback; the journal has it
        audit.bug(error)
        full = sick_disk(error)
        code = full.exit_code if full else 70
        bug = HostFault(
            f"This is a bug in shipit ({type(error).__name__}).",
            hint=f"The server's administrator finds it with: {where()}",
        )
        _refuse(full or bug, git=False)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        audit.end(caller, name, verb, code)
    return code


def _answer(layout: Layout, request: Request, caller: Caller, hooks: Path) -> int:
    if isinstance(request, CliRequest):
        from receiver.cli import out
        from receiver.cli.main import run

        if request.client:
            out.for_terminal(request.columns, request.colours)
            # Hints name commands as on the server, `shipit …`: a user with the client types them like that.
            os.environ.pop(here.REMOTE, None)
        return run(request.words, caller, layout, request.app)
    if isinstance(request, GitRequest):
        from receiver.gate import service

        known = settings.load(layout.settings)
        limit_memory(known.push_memory)
        if request.service is Service.UPLOAD:
            return service.upload(layout, request.app, caller)
        return service.receive(layout, request.app, caller, known, hooks)
    if isinstance(request, RsyncRequest):
        known = settings.load(layout.settings)
        limit_memory(known.push_memory)
        try:
            return rsync.receive(layout, request, caller, known)
        except Failure as failure:
            # rsync would report our own exit codes as errors of its own.
            _refuse(failure, git=False)
            return rsync.REFUSED
    return _greet(caller)


def _verb(request: Request) -> str:
    """What the audit line says: a known word, never the user's text."""
    if isinstance(request, GitRequest):
        return f"git {request.service.value}"
    if isinstance(request, RsyncRequest):
        return "rsync"
    if isinstance(request, CliRequest):
        from receiver.cli.main import ALIASES, COMMANDS

        name = ALIASES.get(request.words[0], request.words[0])
        return name if name in COMMANDS else "help" if name in ("-h", "--help") else "unknown"
    return "greeting"


def _greet(caller: Caller) -> int:
    """A plain `ssh shipit@host`: there is no shell, so print what there is."""
    apps = "all apps" if caller.apps is None else ", ".join(caller.apps) or "no app"
    text = (
        f"Hi {caller.name}, this is shipit: your key may {caller.role.value} {apps}. There is no shell here.\n"
        "Put a commit live:   git push HOST:APP main\n"
        "See what there is:   ssh HOST apps\n"
        "All commands:        ssh HOST shipit --help\n"
    )
    sys.stdout.write(here.typed(text))
    return 0


def _refuse(failure: Failure, *, git: bool) -> None:
    """Print the refusal. git's client shows an ERR packet (gitprotocol-pack(5)) as its own error; without one it would
    add misleading advice about access rights."""
    lines = failure.lines()
    if git:
        body = ("ERR " + "\n".join(lines)).encode()[:60000]
        sys.stdout.buffer.write(b"%04x" % (len(body) + 4) + body)
        sys.stdout.buffer.flush()
        return
    for line in lines:
        sys.stderr.write(f" !     {line}\n")


def _ended(number: int, frame: FrameType | None) -> None:
    # What was begun goes on: git and its hooks hold the turn, and the worker makes the release.
    raise SystemExit(128 + number)
