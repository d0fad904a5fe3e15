"""Which Node.js a project wants: npm's version ranges, and the versions that are available. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from receiver.errors import Rejected

Version = tuple[int, int, int]
# From the first version up to, but not including, the second.
Range = tuple[Version, Version]

# The long-term versions, the best first, which is what anybody gets who wants none; then those that are for a project
# which wants no other. npm has them all, and PyPI, from where it is quicker, all of WHEELS.
MAJORS = (24, 22, 20, 18, 16, 14, 12, 26, 25, 23, 21, 19, 17, 15, 13)
WHEELS = (24, 22)
NAMES = {
    "krypton": "24", "jod": "22", "iron": "20", "hydrogen": "18", "gallium": "16", "fermium": "14", "erbium": "12", "*": "*",
}  # fmt: skip

_LAST: Version = (10**6, 0, 0)
_ANY: Range = ((0, 0, 0), _LAST)
_PART = re.compile(
    r"(\^|~>?|>=|<=|>|<|=)?\s*v?([0-9]+|[xX*])(?:\.([0-9]+|[xX*]))?(?:\.([0-9]+|[xX*]))?(?:[-+][\w.-]+)?"
)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")


def of_file(text: str) -> str:
    """The range in a .nvmrc or .node-version: a version, or one of nvm's names."""
    word = text.strip().lower()
    if word in ("node", "stable", "current", "latest"):
        return "*"
    if word.startswith("lts/"):
        return NAMES.get(word.removeprefix("lts/"), word)
    return re.sub(r"^v(?=[0-9])", "", word)


def best(wish: str) -> Range | None:
    """The part of a range that one major version fulfils, the best of them; None when none does.

    Raises ValueError if it is not a range.
    """
    wanted = list(_ranges(wish))
    for major in MAJORS:
        for low, high in wanted:
            found = max(low, (major, 0, 0)), min(high, (major + 1, 0, 0))
            if found[0] < found[1]:
                return found
    return None


def written(version: Version) -> str:
    return ".".join(map(str, version))


def npm(major: int) -> int:
    """The npm that runs on a Node.js, and knows the locks of its time."""
    return 11 if major >= 22 else 10 if major >= 20 or major == 18 else 8 if major >= 15 else 6


def refused(where: str, wish: str) -> Rejected:
    """The failure for a version that is not available."""
    known = f"{min(MAJORS)} to {max(MAJORS)}"
    return Rejected(
        f"{where}: Node.js {wish!a} is not among those that shipit can bring: {known}.",
        hint=f"Name one of them in shipit.yml, which wins over all other files:  node: {MAJORS[0]}",
    )


def _ranges(wish: str) -> Iterator[Range]:
    for alternative in wish.split("||"):
        text = alternative.strip()
        if hyphen := _HYPHEN.fullmatch(text):
            text = f">={hyphen[1]} <={hyphen[2]}"
        low, high = _ANY
        position = 0
        while position < len(text):
            match = _PART.match(text, position)
            if not match:
                raise ValueError(f"{text!a} is no version")
            below, above = _comparator(match)
            low, high = max(low, below), min(high, above)
            position = match.end()
            while text[position : position + 1] in (" ", ","):
                position += 1
        yield low, high


def _comparator(match: re.Match[str]) -> Range:
    numbers = [int(part) for part in match.groups()[1:] if part and part.isdigit()]
    if match[2] in ("x", "X", "*"):
        return _ANY
    parts = (*numbers, 0, 0)
    first: Version = (parts[0], parts[1], parts[2])
    after = _after(first, len(numbers))
    sign = match[1] or "="
    if sign == "^":
        return first, (first[0] + 1, 0, 0)
    if sign.startswith("~"):
        return first, _after(first, min(len(numbers), 2))
    return {
        "=": (first, after), ">=": (first, _LAST), "<": (_ANY[0], first), "<=": (_ANY[0], after), ">": (after, _LAST),
    }[sign]  # fmt: skip


def _after(version: Version, given: int) -> Version:
    """The first version that is too high for a text with so many numbers (1.2 → 1.3.0)."""
    major, minor, patch = version
    return ((major + 1, 0, 0), (major, minor + 1, 0), (major, minor, patch + 1))[given - 1]
