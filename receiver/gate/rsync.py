"""`rsync -az --delete ./ shipit@HOST:APP/`: parses what rsync's client asks for, and takes the transfer in the app's
turn.

The words are a closed grammar, after Debian's rrsync(1). They can name no path but the app, and cannot make the
server's rsync follow a link, write in place, or send files. rsync's protocol uses standard output, so text for people
goes to standard error; rsync's client passes that on, and the exit code.
"""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from receiver import names
from receiver.caller import Caller, Role
from receiver.errors import Rejected
from receiver.names import AppName

if TYPE_CHECKING:
    from receiver.paths import Layout
    from receiver.settings import Settings

# rsync prints these as "unexplained error": none of its own codes (1-35) means "the release was not made live".
NOT_LIVE, REFUSED = 100, 102
PARTIAL = 23  # rsync's own: some files, which it named before, could not be written as they were sent

# Not allowed: A X (the sender's ids and attributes), b (copies beside the files), K L k (they follow links), R (paths
# as typed), s (arguments that come later in the protocol).
_SHORT = re.compile(r"-([vqlogDtprzcCuIWndxmOJNSHEhUy]+)(?:e[0-9]*\.[A-Za-z]*)?", re.ASCII)
_FLAGS = frozenset({
    "delete", "delete-after", "delete-before", "delete-delay", "delete-during", "delete-excluded", "dirs", "existing",
    "force", "from0", "fuzzy", "group", "ignore-existing", "ignore-times", "links", "msgs2stderr", "new-compress", "no-W",
    "no-msgs2stderr", "no-r", "no-specials", "numeric-ids", "old-compress", "one-file-system", "owner", "partial", "perms",
    "recursive", "safe-links", "size-only", "specials", "stats", "times",
})  # fmt: skip
_NUMBER, _WORD = re.compile(r"[0-9.]{1,20}[KMGkmg]?", re.ASCII), re.compile(r"[A-Za-z0-9,:/_-]{1,200}", re.ASCII)
_FORMAT = re.compile(r"[%A-Za-z0-9 ._-]{0,100}", re.ASCII)
_VALUES = {
    "block-size": _NUMBER, "bwlimit": _NUMBER, "checksum-choice": _WORD, "checksum-seed": _NUMBER, "compress-choice": _WORD,
    "compress-level": _NUMBER, "compress-threads": _NUMBER, "debug": _WORD, "info": _WORD, "log-format": _FORMAT,
    "max-delete": _NUMBER, "max-size": _NUMBER, "min-size": _NUMBER, "modify-window": _NUMBER, "skip-compress": _WORD,
    "stderr": _WORD, "timeout": _NUMBER,
}  # fmt: skip
_PATH = re.compile(r"(?:\./|/)?([^/]+)/*", re.ASCII)
TYPED = "rsync -az --delete ./ HOST:APP/"


class RsyncRequest(NamedTuple):
    """`options` for the rsync that the server starts; `dry`: a dry run, which changes nothing."""

    app: AppName
    options: tuple[str, ...]
    dry: bool


def parse(words: list[str]) -> RsyncRequest:
    """Parse what rsync's client sends for `HOST:APP/`; raises Rejected for everything else."""
    if words[:2] != ["rsync", "--server"]:
        raise Rejected("This is not what an rsync client asks.", hint=f"Ship a directory: {TYPED}")
    if "--sender" in words:
        raise Rejected("rsync only brings files here.", hint="Get what is live: git clone HOST:APP")
    options, dry = [], False
    at = 2
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        short = _SHORT.fullmatch(word)
        if short:
            dry = dry or "n" in short[1]
        elif not _is_long(word):
            raise Rejected(
                f"shipit takes no rsync with {word[:40]!a}.",
                hint=f"Ship a directory: {TYPED}\nNot with -A, -X, -b, -K, -L, -k, -R, -s, --inplace, --append or a path in an option.",
            )
        options.append(word)
        at += 1
    match = _PATH.fullmatch(words[at + 1]) if len(words) == at + 2 and words[at] == "." else None
    if match is None:
        raise Rejected(
            "rsync to an app takes one whole directory, and nothing else.", hint=f"Ship a directory: {TYPED}"
        )
    return RsyncRequest(names.app_name(match[1]), tuple(options), dry)


def _is_long(word: str) -> bool:
    if not word.startswith("--"):
        return False
    name, equals, value = word[2:].partition("=")
    if not equals:
        return name in _FLAGS
    return name in _VALUES and _VALUES[name].fullmatch(value) is not None


def receive(layout: Layout, request: RsyncRequest, caller: Caller, settings: Settings) -> int:
    """Serve one transfer and make a release of it; returns 0 if that is live, or if nothing was different.

    Waits for the app's turn and holds it until the verdict. A transfer that ends early, or whose files an app may not
    have, leaves nothing behind.
    """
    from receiver.gate.service import existing, in_turn, tell, unmake
    from receiver.ledger.follow import follow
    from receiver.ledger.ledger import Ledger
    from receiver.model import Change, Status
    from receiver.proxy.endpoint import still_holds
    from receiver.root.client import Agent
    from receiver.sources.rsync import RsyncSource
    from receiver.story import worker
    from receiver.story.admit import Admission, approve_for, room_for

    caller.require(Role.DEPLOY, request.app)
    with ExitStack() as stack:
        agent = stack.enter_context(Agent.connect(layout.agent_socket))
        new = not Ledger(layout.app(request.app)).exists()
        ledger = existing(layout, request.app, settings, agent)
        turn = stack.enter_context(in_turn(ledger, caller, agent))
        if new:
            stack.callback(unmake, ledger, agent)
        current = ledger.current()
        source = RsyncSource(ledger.paths)
        room = room_for(ledger, settings)
        with source.staging(current) as staging:
            code = staging.transfer(request.options, settings, room, turn.fd)
            if code:
                tell("The transfer is incomplete; nothing was changed.")
                if code == PARTIAL:
                    tell("A file may not be set to run as another user or group: chmod a-s FILE; or: rsync -rlptz …")
                return code
            if request.dry:
                tell("This was a dry run: nothing was changed.")
                return 0
            how = f"If this is intended, once before it: shipit ps:scale {request.app} web=0 --force"
            admission = Admission(layout, ledger, settings, caller, how)
            origin, lines = staging.take(settings, room, caller.name, admission)
            if origin is None:
                tell(f"Nothing is different from {current.name if current else 'before'}.")
                return 0
            for line in lines:
                tell(line)
            approve_for(caller, ledger, admission.names)
            release = ledger.open_release(
                Change.DEPLOY, caller.name, key=caller.fingerprint, builds=True, origin=origin
            )
            ended = worker.begin(layout, ledger, release, agent)
            verdict = follow(
                ledger, release.number, sys.stderr.fileno(), worker=ended, holds=partial(still_holds, ledger)
            )
            staging.keep(origin)
        return 0 if verdict.status is Status.LIVE else NOT_LIVE
