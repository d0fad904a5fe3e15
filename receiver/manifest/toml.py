"""TOML files of a tree. tomllib takes 13 ms to import, so it is imported only if there is one to read."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

from receiver.manifest.problems import decode, reject
from receiver.manifest.tree import MAX_READ, Tree

# tomllib's time grows with the square of the number of parts in a key (seen in Python 3.11). This search is linear: it
# tries a part only where a word or a string begins.
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]{0,100}"|'[^'\n]{0,100}')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]{{0,8}}\.[ \t]{{0,8}}{_PART}){{100}}")


def read(tree: Tree, name: str) -> dict[str, Any]:
    """The data of a TOML file, {} if it is absent or larger than 1 MiB; raises Rejected with file and line."""
    raw = tree.read(name)
    return {} if raw is None else parse(name, raw)


def parse(name: str, raw: bytes, limit: int = MAX_READ) -> dict[str, Any]:
    """Parse TOML of at most `limit` bytes; raises Rejected with file and line."""
    text = decode(name, raw, limit)
    if chain := _LONG_KEY.search(text):
        began = text.count("\n", 0, chain.start()) + 1
        raise reject(f"{name}:{began}", "A key has more than 100 parts.")
    # The standard library has this parser since 3.11; before, it is the package tomli.
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError
        line = re.search(r"at line ([0-9]+)", str(error))
        where = f"{name}:{line[1]}" if line else name
        raise reject(where, f"This is not TOML: {str(error).split(' (at')[0]}.") from error
    except RecursionError as error:
        raise reject(name, "This TOML is nested too deep.") from error
    return data


def table(data: Any, *keys: str) -> dict[str, Any]:
    """The table at data[k1][k2]…; {} if a part of that path is not a table."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
