"""What `shipit pack` needs to know of a Python project: its own description, and how its wheel is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from receiver.manifest import Tree, toml

# The program that builds the wheel, and where to get it for a laptop.
PROGRAM, BROUGHT_BY = "uv", "https://docs.astral.sh/uv"


@dataclass(frozen=True)
class Said:
    """Each field is "" if the project does not say it."""

    name: str = ""
    summary: str = ""
    license: str = ""
    home: str = ""


def said(tree: Tree) -> Said:
    """The `project` table of pyproject.toml; raises Rejected if it is not valid TOML."""
    table = toml.table(toml.read(tree, "pyproject.toml"), "project")

    def text(value: object) -> str:
        return value.strip().partition("\n")[0] if isinstance(value, str) else ""

    urls = toml.table(table, "urls")
    home = next((url for key in ("Homepage", "homepage", "Repository") if (url := text(urls.get(key)))), "")
    return Said(text(table.get("name")), text(table.get("description")), text(table.get("license")), home)


def makes_wheel(tree: Tree) -> bool:
    """Whether the project says how its wheel is made."""
    return any(name in tree.files() for name in ("pyproject.toml", "setup.py"))


def build(program: str, tree: Path, out: Path) -> list[str | Path]:
    """The command that builds the wheel of the files in `tree` into `out`."""
    return [program, "build", "--wheel", "--quiet", "--out-dir", out, tree]


def environment(version: str, when: int) -> Mapping[str, str]:
    """The environment for it: the date of all files, and the version for tools that would ask git."""
    return {"SOURCE_DATE_EPOCH": str(when), "SETUPTOOLS_SCM_PRETEND_VERSION": version}
