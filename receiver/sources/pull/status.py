"""The status of a commit, from a forge or any CI server: it passed, it failed, or it is not known yet.

Understood are the answers of GitHub, GitLab, Gitea and Forgejo about a commit (combined status, statuses, check runs,
pipelines), and a single word of text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from receiver.errors import HostFault, Rejected
from receiver.names import Oid
from receiver.sources.download import checked, shown
from receiver.sources.pull.wish import Place
from receiver.system.ends import Ends, why
from receiver.system.transfer import answered

COMMIT = "{commit}"
MOST = 2**20
SILENCE, LONGEST = 20.0, 60.0  # seconds: without a byte, and for the whole answer
_URL = re.compile(r"https?://", re.IGNORECASE)


class Verdict(str, Enum):
    SUCCESS = "success"
    PENDING = "pending"
    FAILURE = "failure"


# The words of all of them. `warning` is used by Gitea and Forgejo for a check that passed with remarks.
_WELL = frozenset({"success", "passed", "warning", "ok"})
_BEFORE = frozenset(
    {"", "pending", "created", "waiting_for_resource", "preparing", "running", "queued", "in_progress", "requested",
     "waiting", "scheduled", "expected"}
)  # fmt: skip
# A check in this state does not count.
_NEITHER = frozenset({"neutral", "skipped", "manual"})


def is_url(text: str) -> bool:
    return _URL.match(text) is not None


def told(wait_for: str) -> str:
    """What is waited for, for people: a URL without its query, which may hold a secret."""
    return shown(wait_for) if is_url(wait_for) else wait_for[:200]


def checked_url(url: str) -> str:
    """The URL with its {commit}; raises Rejected with what to write."""
    example = "https://api.github.com/repos/OWNER/NAME/commits/{commit}/status"
    if COMMIT not in url:
        raise Rejected(f"The URL says nothing of which commit: it needs {COMMIT}.", hint=f"As in: {example}")
    try:
        checked(url.replace(COMMIT, "0" * 40), http=False)
    except Rejected:
        raise Rejected(f"shipit does not ask {shown(url)!a}.", hint=f"By https, as in: {example}") from None
    return url


def asked(place: Place, url: str, commit: Oid) -> tuple[Verdict, str]:
    """The verdict on the commit, and a line that explains it. Raises HostFault if the answer is not understood.

    Uses the app's password for this host (git:auth), if it has one. Follows no redirect, which would pass the password
    on.
    """
    parts = checked(url.replace(COMMIT, commit), http=False)
    headers = {"Accept": "application/json, text/plain;q=0.9, */*;q=0.1"}
    if password := _password(place, parts.netloc):
        headers["Authorization"] = f"Bearer {password}"
    try:
        connection, answer = answered(parts, Ends(LONGEST, SILENCE), headers)
        try:
            raw = answer.read(MOST + 1)
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        raise HostFault(f"{shown(url)} could not be asked: {why(error)}.") from error
    if answer.status in (404, 422):
        return Verdict.PENDING, f"it answers {answer.status}"  # the server does not know the commit yet
    if answer.status != 200:
        hint = f"Give the app a token for it: shipit git:auth APP {parts.netloc} NAME - < TOKEN"
        raise HostFault(f"{shown(url)} answers {answer.status}.", hint=hint if answer.status in (401, 403) else "")
    if len(raw) > MOST:
        raise HostFault(f"{shown(url)} answers more than {MOST // 2**20} MiB.")
    return understood(raw, commit)


def understood(raw: bytes, commit: Oid) -> tuple[Verdict, str]:
    """What an answer means; raises HostFault if it is not understood."""
    text = raw.decode(errors="replace").strip()
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    if isinstance(said, dict):
        about = said.get("sha") or said.get("id")
        if isinstance(about, str) and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", about) and about != commit:
            raise HostFault(f"What it answers is about another commit, {about[:8]}.")
    return _worst(list(_states(said)))


def _states(said: Any) -> Iterator[tuple[str, str]]:
    """(name, state) of each check in the answer."""
    if isinstance(said, str) and len(said) < 40 and said.lower() in _WELL | _BEFORE | {"failure", "failed", "error"}:
        yield "", said.lower()
    elif isinstance(said, dict) and isinstance(runs := said.get("check_runs"), list):
        for run in runs:
            if isinstance(run, dict):
                ended = run.get("status") == "completed"
                yield _word(run.get("name")), _word(run.get("conclusion")) if ended else "pending"
        if not runs:
            yield "", "pending"
    elif isinstance(said, dict) and isinstance(said.get("state", said.get("status")), str):
        yield "", _word(said.get("state", said.get("status")))
    elif isinstance(said, dict) and "status" in said and said["status"] is None:
        yield "", "pending"  # GitLab has no pipeline for this commit yet
    elif isinstance(said, list):
        latest: dict[str, str] = {}
        # The newest comes first: only the first of each name counts.
        for one in said:
            if isinstance(one, dict) and isinstance(state := one.get("status", one.get("state")), str):
                name = _word(one.get("name") or one.get("context"))
                latest.setdefault(name, "skipped" if one.get("allow_failure") is True else state.lower())
        yield from latest.items()
        if not said:
            yield "", "pending"


def _worst(states: list[tuple[str, str]]) -> tuple[Verdict, str]:
    if not states:
        raise HostFault("What it answers is no status of a commit.")
    if len(states) > 1:
        states = [one for one in states if one[1] not in _NEITHER] or [("", "success")]
    for name, state in states:
        if state not in _WELL and state not in _BEFORE:
            return Verdict.FAILURE, f"{name}: {state}" if name else state
    for name, state in states:
        if state in _BEFORE:
            return Verdict.PENDING, f"{name}: {state or 'nothing yet'}" if name else state or "nothing yet"
    return Verdict.SUCCESS, "success"


def _word(value: Any) -> str:
    text = value.lower() if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else " " for c in text)[:60]


def _password(place: Place, host: str) -> str:
    for line in place.lines(place.credentials):
        parts = urlsplit(line)
        if parts.netloc.rpartition("@")[2] == host and parts.password:
            return unquote(parts.password)
    return ""
