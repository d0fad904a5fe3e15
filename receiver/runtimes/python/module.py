"""How a build runs one of shipit's own modules; for other runtimes, which need not know where Python is."""

from __future__ import annotations

from receiver.runtimes.base import Project


def argv(project: Project, module: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module of this package inside a build."""
    return (str(project.tools / "python"), "-I", "-m", module, *words)
