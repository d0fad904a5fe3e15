"""Modules of shipit's own that a build runs, for other runtimes: where their interpreter lies is nobody else's matter."""

from __future__ import annotations

from receiver.runtimes.base import Project


def argv(project: Project, module: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module of this package inside a build."""
    return (str(project.tools / "python"), "-I", "-m", module, *words)
