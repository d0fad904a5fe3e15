"""Turns a package's systemd unit into a line of a Procfile; its paths are changed to those of the release."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

# Variables that the launcher sets itself.
OURS = frozenset({"PORT", "SOCKET", "DATA_DIR", "HOME"})
# Names for the directory of the package's files: the runtime sets $PACKAGE.
TOP = "$PACKAGE"
_PREFIXES = "-@:+!|"
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|(\S+)', re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*)")


def command(unit: str, files: Collection[str]) -> str:
    """The command of a unit's service; "" if it has none that is understood. `files` are the package's."""
    told = _section(unit)
    starts = [line.lstrip(_PREFIXES) for line in told.get("ExecStart", []) if line]
    if len(starts) != 1:
        return ""
    words = [_in_package(_plain(match), files) for match in _WORD.finditer(starts[0])]
    if not words or any(word is None for word in words):
        return ""
    line = "exec " + " ".join(filter(None, words))
    settings = []
    for assignment in told.get("Environment", []):
        for match in _WORD.finditer(assignment):
            name, equals, value = (match[1] or match[2] or match[3]).partition("=")
            if equals and name not in OURS and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                if (word := _in_package((value, False), files)) is None:
                    return ""
                settings.append(f"{name}={word}")
    if settings:
        line = " ".join(["exec env", *settings, line.removeprefix("exec ")])
    directory = (told.get("WorkingDirectory") or [""])[-1].lstrip("-").strip("/")
    if directory and any(path.startswith(directory + "/") for path in files):
        line = f'cd "{TOP}"/{shlex.quote(directory)} && {line}'
    return line


def _section(unit: str) -> dict[str, list[str]]:
    """The assignments of [Service]; an empty one clears the earlier ones (systemd.syntax(7))."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.replace("\\\n", " ").splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text
        elif section == "[Service]" and text[:1] not in ("#", ";", ""):
            name, _, value = text.partition("=")
            if value.strip():
                found.setdefault(name.strip(), []).append(value.strip())
            else:
                found.pop(name.strip(), None)
    return found


def _plain(match: re.Match[str]) -> tuple[str, bool]:
    """A word without its quotes, and whether systemd would replace variables in it: it always would."""
    word = match[1] if match[1] is not None else match[2] if match[2] is not None else match[3]
    return (re.sub(r"\\(.)", r"\1", word) if match[1] is not None else word), True


def _in_package(word: tuple[str, bool], files: Collection[str]) -> str | None:
    """The word quoted for a shell; None if it has a specifier, which only systemd can replace."""
    text, variables = word
    if re.search(r"(?<!%)(?:%%)*%(?!%)", text):
        return None
    text = text.replace("%%", "%")
    path = text.lstrip("/")
    if text.startswith("/") and (path in files or any(name.startswith(path.rstrip("/") + "/") for name in files)):
        return f'"{TOP}"/{shlex.quote(path)}'
    if not variables:
        return shlex.quote(text)
    parts, at = [], 0
    for match in re.finditer(r"\$\$|" + _VARIABLE.pattern, text):
        parts.append(shlex.quote(text[at : match.start()]) if match.start() > at else "")
        parts.append("'$'" if match[0] == "$$" else f'"{match[0]}"')
        at = match.end()
    parts.append(shlex.quote(text[at:]) if at < len(text) or not parts else "")
    return "".join(parts)
