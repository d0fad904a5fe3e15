"""The Procfile, read as strictly as Dokku does: a bad line is an error before anything is built.

Grammar (Dokku, procfile-util --strict): one `type: command` a line, types unique and DNS labels; blank lines, lines
that begin with `#` or `//`, and comments after a blank are left out. Piku's `wsgi: module:app` is understood.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from receiver.errors import Rejected
from receiver.manifest.problems import Problems, decode, shown
from receiver.manifest.tree import Tree
from receiver.names import TypeName, type_name

NAME = "Procfile"
MAX_BYTES = 64 * 1024
MAX_COMMAND = 4096

_LINE = re.compile(r"([A-Za-z0-9_-]+):(.*)", re.ASCII)
_CRON = re.compile(r"cron[0-9]*", re.ASCII)
_SCHEDULE = re.compile(r"(@[a-z]+|(?:[0-9*/,-]+\s+){3}[0-9A-Za-z*/,-]+\s+[0-9A-Za-z*/,-]+)\s+(\S.*)", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(?:\(\))?")

# Piku's kinds of lines that are no commands, and what to use instead.
_UNSUPPORTED = {
    "rwsgi": "Piku's rwsgi is not supported: start the server in a command, `web: puma -b unix://$SOCKET`.",
    "jwsgi": "Piku's jwsgi is not supported: start the server in a command, `web: java -jar app.jar`.",
    "static": "Piku's static is a line of shipit.yml here: `static: DIRECTORY`.",
}


@dataclass(frozen=True)
class Line:
    """A command and where it was found: the number of its line, or `place` in another file. `cron`: the schedule of a
    line in Piku's form (`cron: 0 3 * * * command`)."""

    command: str
    number: int
    place: str = ""
    cron: str = ""

    @property
    def where(self) -> str:
        return self.place or f"{NAME}:{self.number}"


@dataclass(frozen=True)
class Procfile:
    """`release` is the command of the line `release:`, which is no process type. `preflight`: Piku's, which runs in
    each build."""

    processes: Mapping[TypeName, Line]
    release: Line | None
    wsgi: bool = False
    preflight: Line | None = None


def read(tree: Tree, problems: Problems) -> Procfile | None:
    """Read the Procfile of a tree; None if there is none. Mistakes go to `problems`."""
    raw = tree.read(NAME)
    if raw is None:
        if NAME in tree.files():
            problems.add(NAME, f"The file is larger than {MAX_BYTES // 1024} KiB.")
        return None
    return parse(decode(NAME, raw, MAX_BYTES), problems)


def of_commands(commands: Sequence[tuple[str, str, str]], problems: Problems) -> Procfile | None:
    """A Procfile made of (type, command, place) from another file; None if there are none."""
    found: dict[TypeName, Line] = {}
    for kind, command, place in commands:
        try:
            found[type_name(kind)] = Line(command.strip(), 0, place)
        except Rejected as error:
            problems.add(place, error.message, error.hint)
    release = found.pop(TypeName("release"), None)
    if commands and not found and not problems:
        problems.add(commands[0][2], "There is no process type in it.")
    return Procfile(found, release) if found else None


def parse(text: str, problems: Problems) -> Procfile:
    """Read every line, so that all mistakes are reported at once."""
    found: dict[TypeName, Line] = {}
    wsgi = False
    preflight: Line | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        content = _without_comment(raw.strip())
        if not content:
            continue
        where = f"{NAME}:{number}"
        match = _LINE.fullmatch(content)
        if not match:
            problems.add(where, _unreadable(content), "A line is `type: command`, for example:  web: gunicorn app:app")
            continue
        kind, command = match[1], match[2].strip()
        trouble = _trouble(kind, command)
        if trouble:
            problems.add(where, trouble)
            continue
        if kind == "preflight":
            preflight = Line(command, number)
            continue
        if kind == "php":
            kind, command = "web", f"serve-php {shlex.quote(command)}"
        if kind == "wsgi":
            kind, command, wsgi = "web", f"gunicorn {command}", True
        try:
            name = type_name(kind)
        except Rejected as error:
            problems.add(where, error.message, error.hint)
            continue
        if name in found:
            problems.add(where, f"{kind} is there twice; line {found[name].number} has it too.")
            continue
        timed = _SCHEDULE.fullmatch(command) if _CRON.fullmatch(kind) else None
        found[name] = Line(timed[2], number, cron=" ".join(timed[1].split())) if timed else Line(command, number)
    release = found.pop(TypeName("release"), None)
    if not found and not problems:
        problems.add(NAME, "There is no process type in it.", "One line is enough, for example:  web: gunicorn app:app")
    return Procfile(found, release, wsgi, preflight)


def _trouble(kind: str, command: str) -> str:
    if not command:
        return f"{kind} has no command."
    if len(command) > MAX_COMMAND:
        return f"The command of {kind} is longer than {MAX_COMMAND} characters."
    if not command.isprintable() and any(c < " " and c != "\t" for c in command):
        return f"The command of {kind} holds a control character."
    if kind in _UNSUPPORTED:
        return _UNSUPPORTED[kind]
    if kind == "wsgi" and not _MODULE.fullmatch(command):
        return f"{shown(command)} is not module:app; write a full command as `web: …`."
    return ""


def _unreadable(content: str) -> str:
    if content.startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return "This is a merge conflict that was committed."
    return f"{shown(content)} is not `type: command`."


def _without_comment(line: str) -> str:
    """The line without its comment, which begins the line or follows a blank, outside quotes."""
    if line.startswith(("#", "//")):
        return ""
    quote = ""
    for i, char in enumerate(line):
        if quote:
            if char == quote and (quote == "'" or not _escaped(line, i)):
                quote = ""
        elif char in "'\"" and not _escaped(line, i):
            quote = char
        elif line[i - 1 : i].isspace() and (char == "#" or line[i : i + 3].rstrip() == "//"):
            return line[:i].rstrip()
    return line


def _escaped(line: str, i: int) -> bool:
    before = line[:i]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1
