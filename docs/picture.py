"""Draw a terminal's transcript (standard input) as SVG (standard output): `docs/picture.py < push.txt > push.svg`.

The picture in the README is made of a real push with it; nothing in it is drawn by hand.
"""

from __future__ import annotations

import re
import sys
from html import escape

WIDTH, LINE, LEFT, TOP = 8.0, 19, 18, 46
STYLES = (
    (re.compile(r"^\$ "), "#ffffff"),
    (re.compile(r"^(remote: )?-----> .* is live"), "#7ee787"),
    (re.compile(r"^(remote: )?----->"), "#79c0ff"),
    (re.compile(r"^(remote: )? !  "), "#ff7b72"),
    (re.compile(r"error:|rejected"), "#ff7b72"),
)


def colour(line: str) -> str:
    """The colour of a line by what it says."""
    return next((shade for pattern, shade in STYLES if pattern.search(line)), "#c9d1d9")


def picture(lines: list[str]) -> str:
    """The whole SVG."""
    wide = LEFT * 2 + WIDTH * max(map(len, lines))
    high = TOP + LINE * len(lines) + 12
    rows = "\n".join(
        f'<text x="{LEFT}" y="{TOP + LINE * i + 10}" fill="{colour(line)}" xml:space="preserve">{escape(line)}</text>'
        for i, line in enumerate(lines)
        if line
    )
    dots = "".join(
        f'<circle cx="{20 + 18 * i}" cy="18" r="5.5" fill="{shade}"/>'
        for i, shade in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high}" width="{wide:.0f}" height="{high}" '
        f'font-family="ui-monospace,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="13.3">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>{dots}\n{rows}\n</svg>\n'
    )


if __name__ == "__main__":
    sys.stdout.write(picture(sys.stdin.read().rstrip("\n").split("\n")))
