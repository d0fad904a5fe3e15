"""The process above a shell that runs an app's programs (`./start.sh`, `a; b`, `a | b`): it passes SIGTERM on to them.

A shell does not pass SIGTERM on: it ends, or waits until its program has ended. If bash replaces itself by the program,
nothing has to be passed on, and the launcher does not stay. Standard library only, its fast parts, as in launch.py.
"""

from __future__ import annotations

import os
from _signal import SIGALRM, SIGTERM
from _signal import alarm as alarm_in
from _signal import signal as handle

if False:  # typing is slow to import
    from collections.abc import Callable
    from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "busybox"})
# Words before a program's name that replace themselves by that program.
BEFORE = frozenset({"exec", "env", "nice", "nohup"})
# If a command has one of these outside of quotes, bash may stay above the program.
ABOVE = frozenset("|&(){}`")
# A shell that handles SIGTERM itself has this time to end its program in its own way (s).
GRACE = 2


def stays_above(command: str, search: str) -> bool:
    """Whether a shell may stay above the program of this command; `search` is the PATH. In doubt, True.

    bash replaces itself by the last program of `A=1 a -x && b`, if that has no redirection. A script is read by the
    interpreter that its first line names.
    """
    simple = _last_simple(command)
    if simple is None:
        return True
    words = simple.split()
    while words and (words[0] in BEFORE or _assigns(words[0])):
        words = words[1:]
    if not words or not words[0].isprintable() or set(words[0]) & set("\"'\\$*?[~!"):
        return True
    path = _found(words[0], search)
    return path is None or _is_shell(path) or _is_script_of_a_shell(path)


def stay(start: Callable[[], object]) -> int:
    """Run `start` (which does not return) in a child, pass SIGTERM on, wait for its end; returns its exit code.

    SIGTERM goes to the child. If that is a shell and it ends, its children become ours (a subreaper, prctl(2)) and get
    SIGTERM next. So every program below shells gets one SIGTERM, and the programs' own children get none. We wait for
    every process that got one.
    """
    import ctypes

    not_mine = set(_children(os.getpid()))  # the front
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        try:
            start()
        finally:
            os._exit(127)
    told: set[int] = set()
    asked: dict[int, bool] = {}  # our children that were told to end and have not ended: whether each is a shell

    def tell(pids: list[int]) -> list[int]:
        """Send SIGTERM to these, once to each; returns which ones are new."""
        new = [pid for pid in pids if pid not in told and pid not in not_mine]
        told.update(new)
        written = {_file(pid, fd) for pid in new for fd in (1, 2)}
        for pid in new:
            # The second program of `a | b` ends when the first has: it must still read the first one's last lines.
            if not _file(pid, 0).startswith("pipe:") or _file(pid, 0) not in written:
                _kill(pid)
        return new

    def ask(number: int = 0, frame: FrameType | None = None) -> None:
        mine = [pid for pid in _children(os.getpid()) if pid not in told]
        shells = {pid for pid in mine if _is_shell(f"/proc/{pid}/exe")}
        asked.update({pid: pid in shells for pid in tell(mine)})
        if shells:
            alarm_in(GRACE)

    def insist(number: int, frame: FrameType | None) -> None:
        """After GRACE: end the programs of shells that caught SIGTERM and still wait for them."""
        for shell in [pid for pid, is_one in asked.items() if is_one]:
            tell(_children(shell))

    handle(SIGTERM, ask)
    handle(SIGALRM, insist)
    code = 0
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            if not asked:
                break
        if asked.pop(pid, False):
            ask()
        if not asked and not _lives(child):
            break
    return code if code >= 0 else 128 - code


def _last_simple(command: str) -> str | None:
    """The last command of `a && b`, or of `a; exec b`; None if the text has any other form."""
    quote, text = "", ""
    for letter in command:
        # Quoted text means nothing to the shell, except what bash expands before it starts a program.
        text += letter if not quote or letter in ("`", quote) else "x"
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
    text = text.replace("2>&1", ">>>>")
    text = text.replace("${", "$ ").replace("}", " ").rstrip()
    *before, last = text.replace("&&", ";&").replace("\n", ";").split(";")
    if quote or any(set(part.removeprefix("&")) & ABOVE for part in (*before, last)):
        return None
    # bash itself uses exec for what follows the last `&&`, if that has no `<` or `>`.
    words = last.removeprefix("&").split()
    while words and _assigns(words[0]):
        words = words[1:]
    if words[:1] != ["exec"] and (set(text) & {"<", ">"} or (before and not last.startswith("&"))):
        return None
    return last.removeprefix("&")


def _assigns(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def _found(word: str, search: str) -> str | None:
    """The program of that name; None for bash's builtins and for a program that does not exist."""
    paths = [word] if "/" in word else [f"{place}/{word}" for place in search.split(":")]
    return next((path for path in paths if os.access(path, os.X_OK) and os.path.isfile(path)), None)  # noqa: PTH113


def _is_shell(path: str) -> bool:
    return os.path.basename(os.path.realpath(path)) in SHELLS  # noqa: PTH119


def _is_script_of_a_shell(path: str) -> bool:
    """`#!/bin/sh`, unless its last line replaces it (`exec gunicorn …`)."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            text = file.read(2**16)
    except OSError:
        return True
    if not text.startswith(b"#!"):
        return not text.startswith(b"\x7fELF")
    reads = text[2:].split(b"\n", 1)[0].decode(errors="replace").split()
    if reads and reads[0].endswith("/env"):
        reads = [word for word in reads[1:] if not word.startswith("-")]
    if not reads or os.path.basename(reads[0]) not in SHELLS:  # noqa: PTH119
        return False
    lines = [line for line in text.split(b"\n") if line.strip() and not line.lstrip().startswith(b"#")]
    return not (lines and lines[-1].startswith(b"exec "))


def _children(parent: int) -> list[int]:
    """The living children of a process (proc(5), stat: the name in parentheses may contain anything)."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", errors="replace") as file:  # noqa: PTH123
                    state, above = file.read().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if int(above) == parent and state != "Z":
                found.append(int(name))
    return found


def _file(pid: int, fd: int) -> str:
    """What a descriptor of a process has open (proc(5)): `pipe:[1234]`."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")  # noqa: PTH115
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:  # noqa: SIM105 - contextlib is slow to import
        os.kill(pid, SIGTERM)
    except ProcessLookupError:
        pass


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
