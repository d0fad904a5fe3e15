"""A project that is a package, while other files list what to install: do its commands need the package itself, too?

A requirements.txt or a Pipfile.lock often lists only the requirements of the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from receiver.errors import Rejected
from receiver.manifest import Tree, toml
from receiver.runtimes.python.project import Kind

# If uv.lock has an older version of the project itself and differs in nothing else, install from it: the version was
# raised without locking again, but no package changed. If the lock is up to date, the install failed for another
# reason.
SYNC = """
"$@" && exit; code=$?
packages() {
    awk '/^\\[\\[package/ {n = v = ""} /^name = / {n = $0} /^version = / {v = $0}
         /^source = / && !/(editable|virtual) = "\\."/ {print n, v, $0}' "$1"
}
mv uv.lock .uv.lock.pushed && cp .uv.lock.pushed uv.lock
if "$1" lock --quiet && ! cmp -s uv.lock .uv.lock.pushed &&
    [ "$(packages uv.lock)" = "$(packages .uv.lock.pushed)" ]; then
    rm .uv.lock.pushed
    echo "uv.lock only has another version of the project itself; every package is as it is locked."
    exec "$@"
fi
mv .uv.lock.pushed uv.lock
exit $code
"""
_INSIDE = re.compile(r"src/(\w+)/__init__\.py")
# A program in setup.py and setup.cfg: `name = package.module:function`.
_ENTRY = re.compile(rb"([\w-]+)[ \t]*=[ \t]*[\w.]+:\w+")
# A word of a command that may name a program or a module: not part of a path, and no file.
_WORD = re.compile(r"(?<![\w./-])([\w-]+)(?![\w./:-])")
_MODULE = re.compile(r"(?<![\w./-])(\w+)(?=[.:]\w|\s|$)(?!\.py\b)")


def is_wanted(tree: Tree, kind: Kind, commands: Iterable[str]) -> bool:
    """Whether a command names one of the project's own programs, or a module below src/, which works only if the
    project is installed."""
    if kind not in (Kind.REQUIREMENTS, Kind.PIPENV) or not installs(tree):
        return False
    started, inside = programs(tree), {found[1] for path in tree.files() if (found := _INSIDE.fullmatch(path))}
    return any(started & set(_WORD.findall(line)) or inside & set(_MODULE.findall(line)) for line in commands)


def installs(tree: Tree) -> bool:
    """Whether an installer would accept the top of the tree as a package."""
    files = tree.files()
    if "setup.py" in files:
        return True
    data = _pyproject(tree)
    return "build-system" in data and ("project" in data or "poetry" in toml.table(data, "tool"))


def programs(tree: Tree) -> set[str]:
    """The programs that it would install, as far as its files say."""
    data = _pyproject(tree)
    older = [tree.read(name) or b"" for name in ("setup.py", "setup.cfg")]
    named = {name.decode() for text in older if b"console_scripts" in text for name in _ENTRY.findall(text)}
    return {*named, *toml.table(data, "project", "scripts"), *toml.table(data, "tool", "poetry", "scripts")}


def _pyproject(tree: Tree) -> dict[str, object]:
    try:
        return dict(toml.read(tree, "pyproject.toml"))
    except Rejected:
        # Installing from it will report the mistake.
        return {}
