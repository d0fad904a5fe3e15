"""Dokku's CHECKS: the first path that is asked after a start, and what its answer has in it, as a healthcheck of web."""

from __future__ import annotations

import re

from receiver.manifest.problems import decode
from receiver.manifest.tree import Tree
from receiver.model import Check, CheckKind

NAME = "CHECKS"
_SETTING = re.compile(r"(WAIT|TIMEOUT|ATTEMPTS)\s*=\s*([0-9]{1,4})\s*")
# https://host/path, //host/path or /path, then a text that the answer must contain.
_LINE = re.compile(r"(?:https?:)?(?://[^/\s]+)?(/\S*)(?:\s+(.+?))?\s*")


def read(tree: Tree) -> tuple[Check | None, list[str]]:
    """The healthcheck, None if the file has none, and what to tell of the rest of it."""
    raw = tree.read(NAME)
    known = {"WAIT": 5, "TIMEOUT": 30, "ATTEMPTS": 5}
    checks: list[tuple[str, str]] = []
    told = []
    for number, line in enumerate(decode(NAME, raw, 65536).splitlines() if raw else (), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if setting := _SETTING.fullmatch(text):
            known[setting[1]] = int(setting[2])
        elif (found := _LINE.fullmatch(text)) and "{{" not in text:
            checks.append((found[1], found[2] or ""))
        else:
            told.append(f"{NAME}:{number}: this line is not understood; it checks nothing.")
    if not checks:
        return None, told
    if len(checks) > 1:
        told.append(f"{NAME}: only its first check is made: {checks[0][0]}.")
    path, content = checks[0]
    seconds = min(max(known["WAIT"] + known["ATTEMPTS"] * (known["TIMEOUT"] + known["WAIT"]), 1), 3600)
    return Check(CheckKind.HTTP, path=path, content=content, timeout=seconds), told
