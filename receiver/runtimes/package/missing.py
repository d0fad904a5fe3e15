"""In the build: which packages that a Debian package needs are not installed on this machine. Only told.

python -m receiver.runtimes.package.missing FILE.deb
"""

from __future__ import annotations

import re
import sys

from receiver.system.run import run

_ONE = re.compile(r"\s*([a-z0-9][a-z0-9+.-]+)")


def missing(depends: str, installed: frozenset[str]) -> list[str]:
    """The needs of which no alternative is installed, as they are written; versions are not compared."""
    needs = [need.strip() for need in depends.split(",") if need.strip()]
    names = {need: [match[1] for part in need.split("|") if (match := _ONE.match(part))] for need in needs}
    return [need for need, any_of in names.items() if any_of and not installed.intersection(any_of)]


def main(file: str) -> None:
    depends = run(["dpkg-deb", "--field", file, "Pre-Depends", "Depends"]).out
    told = ",".join(line.partition(":")[2] for line in re.sub(r"\n[ \t]+", " ", depends).splitlines())
    shown = run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Provides}\n"], check=False).out
    lines = [line.partition(" ")[2] for line in shown.splitlines() if line.startswith("installed ")]
    installed = frozenset(
        word for line in lines for word in re.findall(r"[a-z0-9][a-z0-9+.-]+", re.sub(r"\([^)]*\)", "", line))
    )
    if found := missing(told, installed):
        print(f"Not installed on this server, and {file} needs it: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
