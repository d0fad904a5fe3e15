"""A build step: prints which requirements of a Debian or RPM package this machine lacks. It never fails the build.

python -m receiver.runtimes.package.missing FILE
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from receiver.system.run import find, run

_ONE = re.compile(r"\s*([a-z0-9][a-z0-9+.-]+)")


def missing(depends: str, installed: frozenset[str]) -> list[str]:
    """The requirements without an installed alternative, as they are written; versions are not compared."""
    needs = [need.strip() for need in depends.split(",") if need.strip()]
    names = {need: [match[1] for part in need.split("|") if (match := _ONE.match(part))] for need in needs}
    return [need for need, any_of in names.items() if any_of and not installed.intersection(any_of)]


def installed() -> frozenset[str]:
    """The names of the installed Debian packages, and the names that these provide."""
    shown = run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Provides}\n"], check=False).out
    lines = [line.partition(" ")[2] for line in shown.splitlines() if line.startswith("installed ")]
    return frozenset(
        word for line in lines for word in re.findall(r"[a-z0-9][a-z0-9+.-]+", re.sub(r"\([^)]*\)", "", line))
    )


def of_deb(file: str) -> list[str]:
    depends = run(["dpkg-deb", "--field", file, "Pre-Depends", "Depends"]).out
    told = ",".join(line.partition(":")[2] for line in re.sub(r"\n[ \t]+", " ", depends).splitlines())
    return missing(told, installed())


def of_rpm(file: str) -> list[str]:
    """A requirement is a file, a library's soname, or the name of a package or program. Versions are not compared."""
    from receiver.runtimes.package import rpm

    with Path(file).open("rb") as packed:
        wanted = rpm.needs(rpm.Rpm(packed))
    known = installed()
    libraries = run(["/sbin/ldconfig", "-p"], check=False).out
    return [need for need in wanted if not there(need, known, libraries)]


def there(need: str, known: frozenset[str], libraries: str) -> bool:
    plain = need.partition("(")[0]
    if need.startswith("/"):
        return Path(need).exists()
    if ".so" in plain:
        return re.search(rf"^[ \t]*{re.escape(plain)} ", libraries, re.MULTILINE) is not None
    return plain in known or find(plain) is not None


def main(file: str) -> None:
    found = of_rpm(file) if file.endswith(".rpm") else of_deb(file)
    shown = [need[:100] for need in found if need.isprintable()]
    if shown:
        print(f"Not installed on this server, and {file} needs it: {', '.join(shown)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
