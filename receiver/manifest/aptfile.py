"""Heroku's Aptfile: packages of Debian, one a line. Repositories and URLs in it are no names and are told."""

from __future__ import annotations

from receiver import names
from receiver.errors import Rejected
from receiver.manifest.problems import Problems, decode
from receiver.manifest.tree import Tree

NAME = "Aptfile"


def read(tree: Tree, problems: Problems) -> tuple[tuple[str, ...], list[str]]:
    """The packages, and a notice for each line that is none."""
    raw = tree.read(NAME)
    found: list[str] = []
    told: list[str] = []
    for number, line in enumerate(decode(NAME, raw, 65536).splitlines() if raw else (), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if text.startswith(":repo:") or "://" in text:
            told.append(
                f"{NAME}:{number}: packages come from the server's own repositories only; this line does nothing."
            )
            continue
        for word in text.split():
            try:
                found.append(names.package(word.partition(":")[0]))
            except Rejected as error:
                problems.add(f"{NAME}:{number}", error.message, "One name of a package a line.")
    return tuple(dict.fromkeys(found)), told
