"""TOML files of a tree. tomllib takes 13 ms to import, so it is imported when there is one to read."""

from __future__ import annotations

import re
import sys
from typing import Any

from .problems import decode, reject
from .tree import MAX_READ, Tree


def read(tree: Tree, name: str) -> dict[str, Any]:
    """The data of a TOML file, {} if it is absent or larger than 1 MiB; raises Rejected with file and line."""
    raw = tree.read(name)
    return {} if raw is None else parse(name, raw)


def parse(name: str, raw: bytes, limit: int = MAX_READ) -> dict[str, Any]:
    """Parse TOML of at most `limit` bytes; raises Rejected with file and line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # only installed where the standard library has none

    text = decode(name, raw, limit)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line ([0-9]+)", str(error))
        where = f"{name}:{line[1]}" if line else name
        raise reject(where, f"This is not TOML: {str(error).split(' (at')[0]}.") from error
    except RecursionError as error:
        raise reject(name, "This TOML is nested too deep.") from error


def table(data: Any, *keys: str) -> dict[str, Any]:
    """The table at data[k1][k2]…, or {} when anything on the way is not a table."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
