"""What is installed in an environment, from its metadata: read as data, without running the environment's Python.

https://packaging.python.org/en/latest/specifications/core-metadata/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from receiver.runtimes.base import Part, Slug

# The fields come first; a description of any length follows.
HEAD = 2**16
LONGEST = 200
# The patterns cannot backtrack: a long line is read only once.
_FIELD = re.compile(r"^(Name|Version|License|License-Expression): *(\S.*)$", re.MULTILINE)
_VERSION = re.compile(r"^version(?:_info)? *= *([0-9]+\.[0-9]+(?:\.[0-9]+)?)", re.MULTILINE)
_LIB = re.compile(r"python3\.[0-9]{1,3}")


def environment(slug: Slug, venv: str) -> Iterator[Part]:
    """The interpreter of an environment, and the distributions in it."""
    if version := _VERSION.search(slug.read(f"{venv}/pyvenv.cfg", HEAD).decode(errors="replace")):
        yield Part("generic", "python", version[1], tool=True)
    for lib in slug.names(f"{venv}/lib"):
        if _LIB.fullmatch(lib):
            yield from distributions(slug, f"{venv}/lib/{lib}/site-packages")


def distributions(slug: Slug, directory: str, *, tool: bool = False) -> Iterator[Part]:
    """The distributions that are installed in a directory."""
    for name in slug.names(directory):
        if not name.endswith(".dist-info"):
            continue
        head = slug.read(f"{directory}/{name}/METADATA", HEAD).decode(errors="replace").replace("\r\n", "\n")
        said = [(key, value.rstrip(" ")) for key, value in reversed(_FIELD.findall(head.partition("\n\n")[0]))]
        fields = {key: value for key, value in said if len(value) <= LONGEST}
        if fields.get("Name") and fields.get("Version"):
            known = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
            license_ = fields.get("License-Expression") or fields.get("License", "")
            yield Part("pypi", known, fields["Version"], license_, tool)
