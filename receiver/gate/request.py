"""The grammar of `SSH_ORIGINAL_COMMAND`: one of a fixed set of git services, or words for the CLI. The rest is refused.

Nothing here ever reaches a shell, and nothing is repaired: a text parses as a whole or is Rejected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from receiver import names
from receiver.client.words import PREFIX, unpack
from receiver.errors import Rejected
from receiver.gate import rsync
from receiver.gate.rsync import RsyncRequest
from receiver.names import AppName

MAX = 64 * 1024
WORDS_MAX = 1000

# What git's client sends for `host:blog`, `ssh://host/blog` and either with `.git` (connect.c quotes the path with
# single quotes); git < 1.6 sent no dash. names.py parses the app's name itself.
_GIT = re.compile(r"git[- ]([a-z-]+) '/?([^'/]+?)(?:\.git)?'", re.ASCII)


class Service(str, Enum):
    """The two git services a client may ask for."""

    RECEIVE = "receive-pack"
    UPLOAD = "upload-pack"


@dataclass(frozen=True)
class GitRequest:
    service: Service
    app: AppName


@dataclass(frozen=True)
class CliRequest:
    """The words of a command without the leading `shipit`, at least one. The other fields are facts that only the
    client knows (client/words.py)."""

    words: tuple[str, ...]
    app: str = ""
    columns: int = 0
    colours: bool = False
    client: bool = False


@dataclass(frozen=True)
class Greeting:
    """No command was given: `ssh shipit@host` by hand."""


Request = GitRequest | RsyncRequest | CliRequest | Greeting


def parse(command: bytes | None) -> Request:
    """Parse SSH_ORIGINAL_COMMAND as sshd set it (None: it was not set); raises Rejected, nothing else."""
    if command is None or not command.strip():
        return Greeting()
    if len(command) > MAX:
        raise Rejected(f"The command is longer than {MAX // 1024} KiB.")
    try:
        text = command.decode()
    except UnicodeDecodeError as error:
        raise Rejected("The command is not UTF-8.") from error
    # C0, DEL, C1 and the line separators: none of them belongs into a line that a person typed.
    if any(c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" for c in text):
        raise Rejected(
            "A command is one line without control characters.",
            hint="Values with line breaks go over standard input: shipit config:set APP NAME - < FILE",
        )
    if text.startswith(PREFIX):
        return _of_client(text)
    if text.startswith("git") and text[3:4] in ("-", " "):
        return _git(text)
    words = split(text)
    if words[0] == "rsync":
        return rsync.parse(words)
    if words[0] in ("scp", "internal-sftp", "sftp-server"):
        raise Rejected("shipit takes no scp or sftp.", hint=f"Ship a directory: {rsync.TYPED}")
    if words[0] == "shipit":
        words = words[1:]
    app = ""
    if words[:1] == ["--app"] and len(words) > 2:
        app, words = names.app_name(words[1]), words[2:]
    return CliRequest(tuple(words), app) if words else Greeting()


def _of_client(text: str) -> CliRequest:
    try:
        asked = unpack(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("This is not what a shipit client asks.", hint="Bring both to one version") from error
    if len(asked.words) > WORDS_MAX:
        raise Rejected(f"The command has more than {WORDS_MAX} words.")
    if asked.app:
        names.app_name(asked.app)
    return CliRequest(asked.words, asked.app, max(0, min(asked.columns, 1000)), asked.colours, client=True)


def _git(text: str) -> GitRequest:
    if text.startswith("git-lfs-"):
        raise _no_lfs()
    match = _GIT.fullmatch(text)
    if not match:
        raise Rejected(
            "This is not a git command that shipit knows.", hint="The remote is written HOST:APP, nothing else."
        )
    try:
        service = Service(match[1])
    except ValueError:
        raise Rejected(f"shipit does not offer git {match[1]}.") from None
    return GitRequest(service, names.app_name(match[2]))


def _no_lfs() -> Rejected:
    return Rejected(
        "shipit stores no Git LFS objects.",
        hint="Keep them where they are and name that place: git config -f .lfsconfig lfs.url https://…",
    )


def _twice(text: str) -> str:
    """What to type instead of a command whose quotes the client's shell has removed."""
    why = "ssh takes one pair of quotes off. Quote the command as a whole: "
    if text.removeprefix("shipit ").startswith("run "):
        return f"{why}ssh HOST \"run APP sh -c 'echo one; echo two'\""
    return (
        f"{why}ssh HOST \"config:set APP 'NAME=value'\"\n"
        "or send the value over standard input: ssh HOST config:set APP NAME - < FILE"
    )


def split(text: str) -> list[str]:
    """Split into words as a POSIX shell does, with quotes and backslashes only: no variable, glob, pipe or list.

    Stricter than shlex: the client's shell and ssh have processed the text before. Text that shows a change by them is
    refused: an unquoted shell operator, a quote within a word (`J={"a":1}`), a backslash before a letter (`a\\nb`).
    """
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        word, at = _word(text, at)
        words.append(word)
    if len(words) > WORDS_MAX:
        raise Rejected(f"The command has more than {WORDS_MAX} words.")
    return words


def _word(text: str, at: int) -> tuple[str, int]:
    """One word from `at`, and the index after it: unquoted, or quoted as a whole, or single-quoted from its first `=`
    on."""
    parts: list[str] = []
    bare = ""
    quoted = False
    while at < len(text) and text[at] != " ":
        c = text[at]
        if c in "'\"":
            # A double quote after NAME= may be the shell's, or the beginning of a JSON value: refuse it.
            if bare and (c == '"' or not (bare.endswith("=") and bare.count("=") == 1)):
                raise Rejected(f"A quote in the middle of a word: {_beginning(bare + text[at:])}", hint=_twice(text))
            part, at = _single(text, at + 1) if c == "'" else _double(text, at + 1)
            parts.append(bare + part)
            bare, quoted = "", True
        elif quoted and c == "\\" and text[at + 1 : at + 2] in ("'", "!"):
            # A quote within quotes, as shells write it: 'it'\''s'.
            parts.append(text[at + 1])
            at += 1
        elif c in ";&|<>`()":
            raise Rejected(f"There is no shell here, so {c} means nothing.", hint=_twice(text))
        elif quoted:
            raise Rejected(f"Something behind a closing quote: {_beginning(text[at:])}", hint=_twice(text))
        elif c == "\\":
            at += 1
            if at == len(text):
                raise Rejected("The command ends with a backslash.")
            if text[at].isalnum():
                raise Rejected(f"A backslash before a letter: {_beginning(bare + text[at - 1 :])}", hint=_twice(text))
            bare += text[at]
        else:
            bare += c
        at += 1
    return "".join(parts) + bare, at


def _beginning(text: str) -> str:
    """Enough text to find the place by; the rest may be a secret."""
    return ascii(text[:20])


def _single(text: str, at: int) -> tuple[str, int]:
    """The text inside single quotes from `at`, and the index of the closing quote."""
    end = text.find("'", at)
    if end < 0:
        raise Rejected("A quote ' is not closed.")
    return text[at:end], end


def _double(text: str, at: int) -> tuple[str, int]:
    """The text inside double quotes from `at`, and the index of the closing quote."""
    out: list[str] = []
    while at < len(text) and text[at] != '"':
        # Inside double quotes a backslash escapes only these characters (POSIX shell, 2.2.3).
        if text[at] == "\\" and text[at + 1 : at + 2] and text[at + 1] in '"\\$`':
            at += 1
        out.append(text[at])
        at += 1
    if at >= len(text):
        raise Rejected('A quote " is not closed.')
    return "".join(out), at
