"""What a project's own files say of how it is started by hand: Flask's .flaskenv, a command in its README."""

from __future__ import annotations

import re

from receiver.manifest.tree import Tree

_FLASK_APP = re.compile(rb"""^[ \t]*(?:export[ \t]+)?FLASK_APP[ \t]*=[ \t]*["']?([\w./]{1,200})""", re.MULTILINE)
_READMES = ("README.md", "README.rst", "README.txt", "README", "readme.md", "Readme.md")


def flask_app(tree: Tree) -> tuple[str, ...]:
    """The files that FLASK_APP of .flaskenv may mean, which `flask run` reads: a module's, or a package's."""
    found = _FLASK_APP.search(tree.read(".flaskenv") or b"")
    if not found:
        return ()
    name = found[1].decode().removeprefix("./")
    if name.endswith(".py"):
        return (name,)
    path = name.strip("/").replace(".", "/")
    return (f"{path}.py", f"{path}/__init__.py")


def in_readme(tree: Tree, command: str) -> str:
    """The only file of the tree that its README starts with this command; "" if there is none, or several."""
    pattern = re.compile(rb"\b%s[ \t]+(?:\./)?([\w./-]{1,200}\.py)\b" % command.replace(" ", "[ \\t]+").encode())
    files = tree.files()
    named = {
        path
        for name in _READMES
        for found in pattern.findall(tree.read(name) or b"")
        if (path := found.decode()) in files
    }
    return named.pop() if len(named) == 1 else ""
