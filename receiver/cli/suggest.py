"""Suggests a command for an unknown word. For a word that asks to see something, never a command that changes
something."""

from __future__ import annotations

from collections.abc import Collection, Sequence

# Commands that only look: they are suggested freely. The others only if one letter was mistyped.
LOOKS = frozenset(
    {
        "apps:list", "apps:exists", "status", "releases", "releases:info", "releases:output", "config:show",
        "config:get", "config:keys", "ps", "logs", "domains:list", "ssh-keys:list", "check", "plan", "doctor", "version",
    }
)  # fmt: skip
# Words of other receivers that have no alias here, because their arguments differ or they mean several things here.
ELSEWHERE = {
    "apps:locked": "status", "apps:report": "status", "report": "status", "ps:report": "ps", "ps:inspect": "ps",
    "builds:list": "releases", "builds:info": "releases:info", "builds:output": "releases:output",
    "logs:failed": "releases:output", "config:export": "config:show", "config:bundle": "config:show",
    "config:live": "config:show", "domains:report": "domains:list", "checks:report": "status",
    "builds:report": "releases", "audit": "releases", "log": "logs", "ls": "apps:list", "info": "status",
    "stat": "status", "stats": "status", "enter": "run", "events": "releases", "redeploy": "deploy",
}  # fmt: skip


def instead(word: str, commands: Sequence[str], aliases: Collection[str]) -> str:
    """A hint for an unknown `word`: one command, the commands of the same noun, or where all are listed."""
    if word in ELSEWHERE:
        return f"Here it is: shipit {ELSEWHERE[word]}"
    slips = [name for name in (*commands, *aliases) if one_slip(word, name)]
    if len(slips) == 1:
        return f"Did you mean: shipit {slips[0]}"
    noun = word.partition(":")[0]
    same = [name for name in commands if name.partition(":")[0] == noun]
    if ":" in word and same:
        return f"Commands of {noun}: {', '.join(same)}"
    import difflib

    near = difflib.get_close_matches(word, sorted(LOOKS & set(commands)), 1, 0.7)
    return f"Did you mean: shipit {near[0]}" if near else "All commands: shipit --help"


def one_slip(typed: str, meant: str) -> bool:
    """Whether the two differ by one letter: left out, added, replaced, or swapped with its neighbour."""
    if typed == meant or abs(len(typed) - len(meant)) > 1:
        return False
    at = next((i for i, (a, b) in enumerate(zip(typed, meant, strict=False)) if a != b), min(len(typed), len(meant)))
    left, right = typed[at:], meant[at:]
    return (
        left[1:] == right[1:]
        or left[1:] == right
        or left == right[1:]
        or (left[:2] == right[1::-1] and left[2:] == right[2:])
    )
