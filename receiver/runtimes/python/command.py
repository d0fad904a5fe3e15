"""Understands commands of Python projects: which web server one starts, and by which runner."""

from __future__ import annotations

import os.path
import re
import shlex
from collections.abc import Callable, Sequence

from receiver.manifest.command import Server

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_WRAPPERS = {("exec",), ("env",), ("newrelic-admin", "run-program"), ("ddtrace-run",), ("opentelemetry-instrument",)}
_PYTHON = re.compile(r"python(?:3(?:\.[0-9]+)?)?")
_RUNNER = re.compile(r"(uv|poetry|pipenv)\s+run\s+(?:--(?:frozen|locked|no-sync|no-dev|offline|quiet)\s+|-q\s+)*")

# A setting in gunicorn's configuration file, which is not run here.
_REUSES = re.compile(rb"^[ \t]*reuse_port\s*=(?!\s*(?:False|0|None)\b)", re.MULTILINE)
_BINDS = {"gunicorn": ("-b", "--bind"), "uvicorn": ("--port", "--uds", "--fd")}
SERVERS = tuple(_BINDS)


def server(command: str, read: Callable[[str], bytes | None] = lambda _: None) -> Server | None:
    """The gunicorn or uvicorn that a shell command ends in, None for anything else. `read` reads a file of the tree.

    With reuse_port, in the command or in gunicorn's configuration file, gunicorn takes no unix socket.
    """
    words = _last_command(command)
    if not words:
        return None
    name, args = words[0].rpartition("/")[2], words[1:]
    if name not in _BINDS:
        return None
    config = _address(args, ("-c", "--config")) or "gunicorn.conf.py" if name == "gunicorn" else ""
    said = read(os.path.normpath(config.removeprefix("file:"))) if config else None
    shares = "--reuse-port" in args or bool(said and _REUSES.search(said))
    return Server(name, _address(args, _BINDS[name]), shares)


def without_runner(command: str) -> tuple[str, str]:
    """The command without a leading `uv run`, and that runner's name; ("command", "") if there is none.

    The environment is on the PATH of every process anyway, and a runner would try to change it.
    """
    match = _RUNNER.match(command)
    if not match or command[match.end() :].startswith("-"):
        return command, ""
    return command[match.end() :], match[1]


def _last_command(command: str) -> list[str]:
    """The words of the last simple command of an `a && b; c` line, wrappers taken off; [] if it has pipes or is odd."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return []
    last: list[str] = []
    for word in words:
        if word in ("&&", ";"):
            last = []
        elif word and set(word) <= set("();<>|&"):
            return []
        else:
            last.append(word)
    return _unwrapped(last)


def _unwrapped(words: list[str]) -> list[str]:
    while words:
        wrapper = next((w for w in _WRAPPERS if tuple(words[: len(w)]) == w), None)
        if wrapper:
            words = words[len(wrapper) :]
        elif _ASSIGNMENT.match(words[0]):
            words = words[1:]
        elif _PYTHON.fullmatch(words[0].rpartition("/")[2]) and words[1:2] == ["-m"]:
            words = words[2:]
        else:
            return words
    return []


def _address(args: Sequence[str], options: tuple[str, ...]) -> str:
    for i, arg in enumerate(args):
        for option in options:
            if arg == option:
                return args[i + 1] if i + 1 < len(args) else arg
            if option.startswith("--") and arg.startswith(option + "="):
                return arg[len(option) + 1 :]
            if not option.startswith("--") and arg.startswith(option) and len(arg) > len(option):
                return arg[len(option) :]
    return ""
