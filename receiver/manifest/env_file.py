"""Piku's ENV: defaults of config vars, `NAME=value` a line, as it is committed beside the Procfile."""

from __future__ import annotations

from receiver import names
from receiver.errors import Rejected
from receiver.manifest.problems import Problems, decode, shown
from receiver.manifest.tree import Tree
from receiver.names import ConfigKey

NAME = "ENV"
MAX_BYTES = 64 * 1024
# Prefixes of settings for Piku itself, which mean nothing to an app.
_PIKUS = ("NGINX_", "UWSGI_", "PIKU_", "CLOUDFLARE_", "LETSENCRYPT_")
_OWN = frozenset({"PORT", "BIND_ADDRESS", "PYTHON_VERSION", "NODE_VERSION", "DISABLE_IPV6", "AUTO_RESTART"})


def read(tree: Tree, problems: Problems) -> tuple[tuple[ConfigKey, str], ...]:
    """The defaults that the file has; nothing if there is none, or it is something else of that name."""
    raw = tree.read(NAME)
    if raw is None:
        return ()
    found: dict[ConfigKey, str] = {}
    for number, line in enumerate(decode(NAME, raw, MAX_BYTES).splitlines(), 1):
        text = line.strip().removeprefix("export ").strip()
        name, equals, value = text.partition("=")
        if not text or text.startswith("#") or name.startswith(_PIKUS) or name in _OWN:
            continue
        try:
            if not equals:
                raise Rejected(f"{shown(text)} is not NAME=value.")
            found[names.config_key(name.strip())] = _plain(value.strip())
        except Rejected as error:
            problems.add(f"{NAME}:{number}", error.message, error.hint)
    return tuple(found.items())


def _plain(value: str) -> str:
    quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    return value[1:-1] if quoted else value
