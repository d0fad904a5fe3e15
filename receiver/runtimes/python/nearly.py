"""Files that look like requirements but are none: the push is refused with advice, so no empty environment is built."""

from __future__ import annotations

import re

from receiver.manifest import Problems, Tree, toml
from receiver.runtimes import unserved
from receiver.runtimes.python.project import Kind, poetry_package

_CONDA = ("environment.yml", "environment.yaml", "conda.yml")
_BELOW = re.compile(r"([A-Za-z0-9._-]+)/(requirements\.txt|pyproject\.toml|uv\.lock|poetry\.lock|Pipfile\.lock)")


def check(tree: Tree, kind: Kind, problems: Problems) -> None:
    """Add files that look like requirements and are none to `problems`."""
    if kind is Kind.PYPROJECT:
        _poetry_without_lock(tree, problems)
    if kind is not Kind.NOTHING:
        return
    files = tree.files()
    conda = next((name for name in _CONDA if name in files), "")
    below = sorted(filter(None, map(_BELOW.fullmatch, files)), key=lambda match: match[0])
    if conda:
        problems.add(conda, "Conda's environments are not built here, and there is no requirements.txt.",
                     "Write what pip shall install into requirements.txt, one package a line.")  # fmt: skip
    elif below := [match for match in below if match[1] not in unserved.ASIDE]:
        directory = below[0][1]
        problems.add(below[0][0], "The requirements are in a directory, and nothing at the top says what to install.",
                     f"If {directory}/ is the app, with its own Procfile, write into shipit.yml:\n"
                     f"build: {{root: {directory}}}\n"
                     f"If the app is the whole repository:  echo '-r {below[0][0]}' > requirements.txt")  # fmt: skip


def check_lock_above(whole: Tree, root: str, problems: Problems) -> None:
    """Refuse a lock file that is meant for the app's directory but is outside of it, instead of ignoring it."""
    if not root or "uv.lock" not in whole.files() or f"{root}/uv.lock" in whole.files():
        return
    workspace = toml.table(toml.read(whole, "pyproject.toml"), "tool", "uv", "workspace")
    if workspace and f"{root}/pyproject.toml" in whole.files():
        problems.add("uv.lock", f"The lock of the workspace is outside of build.root ({root}), which alone is released.",
                     "Leave build.root out, and the whole workspace is installed by its lock; the Procfile, at the top,\n"
                     f"names the directory:  web: gunicorn --chdir {root} app:app")  # fmt: skip


def _poetry_without_lock(tree: Tree, problems: Problems) -> None:
    data = toml.read(tree, "pyproject.toml")
    poetry = toml.table(data, "tool", "poetry")
    wanted = set(toml.table(poetry, "dependencies")) - {"python"}
    if wanted and not toml.table(data, "project") and not poetry_package(tree, data):
        problems.add("pyproject.toml", "This is a project of Poetry, and there is no poetry.lock.",
                     "poetry lock; git add poetry.lock; git commit; push again")  # fmt: skip
