"""Installs another tool's lock file with uv. A build step: runs in the build's sandbox, in the slug.

    python -I -m receiver.runtimes.python.lockfile poetry.lock|Pipfile.lock UV

The requirements go to uv on standard input, never into a file: they may hold the password of a private index.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from receiver.errors import Failure, Rejected
from receiver.manifest import toml
from receiver.runtimes.python.lock import Locked, pipenv, poetry
from receiver.system.told import told


def main() -> NoReturn:
    """Becomes `uv pip install` in the environment VIRTUAL_ENV; returns only if the lock file cannot be used."""
    name, uv = sys.argv[1:]
    try:
        locked = read(Path(name))
    except Failure as failure:
        sys.exit(told(failure))
    source = os.memfd_create("requirements", 0)
    os.write(source, locked.text.encode())
    os.lseek(source, 0, os.SEEK_SET)
    os.dup2(source, 0)
    hashes = ["--require-hashes"] if locked.hashed else []
    os.execv(uv, [uv, "pip", "install", "--exact", "--no-deps", *hashes, "-r", "-"])


def read(path: Path) -> Locked:
    """Read the lock file and the file it was made from, both in the working directory."""
    try:
        if path.name == "Pipfile.lock":
            pipfile = Path("Pipfile")
            made_from = toml.parse("Pipfile", pipfile.read_bytes()) if pipfile.is_file() else None
            return pipenv.requirements(json.loads(path.read_bytes()), made_from)
        made_from = toml.parse("pyproject.toml", Path("pyproject.toml").read_bytes())
        return poetry.requirements(toml.parse(path.name, path.read_bytes(), limit=2**26), made_from, os.environ)
    except (ValueError, TypeError, KeyError, AttributeError, FileNotFoundError, RecursionError) as error:
        said = ascii(str(error)[:200])[1:-1]
        raise Rejected(f"{path} is not as its tool writes it ({type(error).__name__}: {said}).") from error


if __name__ == "__main__":
    main()
