"""`.env.example`: the config vars that a project's authors want set, by name. Its values are examples and count nowhere."""

from __future__ import annotations

import re

from receiver import names
from receiver.errors import Rejected
from receiver.manifest.tree import Tree
from receiver.names import ConfigKey

NAMES = (".env.example", ".env.sample", ".env.template", ".env.dist", "env.example", ".env-example")
_LINE = re.compile(rb"^(?:export\s+)?([A-Z][A-Z0-9_]*)\s*=", re.MULTILINE)
# Variables that shipit itself sets for each process.
_OURS = frozenset({"PORT", "HOST", "SOCKET", "NODE_ENV", "DATA_DIR", "RACK_ENV", "RAILS_ENV"})


def read(tree: Tree) -> tuple[str, tuple[ConfigKey, ...]]:
    """The file's name and the names in it; lines that are comments are examples of what may be left out."""
    file = next((name for name in NAMES if name in tree.files()), "")
    found: list[ConfigKey] = []
    for word in _LINE.findall(tree.read(file) or b"") if file else ():
        try:
            key = names.config_key(word.decode())
        except Rejected:
            continue
        if key not in _OURS and key not in found:
            found.append(key)
    return file, tuple(found[:100])
