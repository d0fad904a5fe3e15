"""Finds modules of the project that its Python files import and that would not be shipped, since globs easily miss
some."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from receiver.client.files import Selection

# Where the project's own modules are: at its top, and below the directory that many projects use.
ROOTS = ("", "src/")
LARGEST = 2**20


def forgotten(selection: Selection) -> dict[str, str]:
    """Path of a module that is here and would not be shipped → the first shipped file that imports it."""
    shipped = set(selection.paths)
    found: dict[str, str] = {}
    for path in selection.paths:
        if path.endswith(".py"):
            for module in _imported(selection.root, path):
                for missing in _missing(selection.root, module, shipped):
                    found.setdefault(missing, path)
    return found


def _imported(root: Path, path: str) -> Iterator[PurePosixPath]:
    """The imports of a file, as paths without an ending below the project's top."""
    file = root / path
    try:
        tree = ast.parse(file.read_bytes() if file.stat().st_size <= LARGEST else b"")
    except (SyntaxError, ValueError, OSError, RecursionError):
        return  # the build will report the mistake
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                for top in ROOTS:
                    yield PurePosixPath(top + alias.name.replace(".", "/"))
        elif isinstance(node, ast.ImportFrom):
            within = (node.module or "").replace(".", "/")
            above = PurePosixPath(path).parents
            bases = (
                [above[node.level - 1]] if 0 < node.level <= len(above) else
                [PurePosixPath(top) for top in ROOTS] if not node.level else []
            )  # fmt: skip
            for base in bases:
                yield base / within
                for alias in node.names:
                    yield base / within / alias.name


def _missing(root: Path, module: PurePosixPath, shipped: set[str]) -> Iterator[str]:
    """The files of the module, and of its parent packages, that exist and would not be shipped."""
    if ".." in module.parts:
        return
    for part in (module, *module.parents[:-1]):
        for name in (f"{part}.py", f"{part}/__init__.py"):
            if name not in shipped and (root / name).is_file():
                yield name
