"""Programs that PyPI has as wheels (such as Node.js), for other runtimes, which need not know PyPI."""

from __future__ import annotations

from collections.abc import Mapping

from receiver.runtimes.base import Project


def install(project: Project, requirement: str, directory: str) -> tuple[str, ...]:
    """The command that unpacks a wheel and its requirements into a directory of the slug."""
    python, uv = (str(project.tools / name) for name in ("python", "uv"))
    return (uv, "pip", "install", "--quiet", "--python", python, "--target", directory, requirement)


def environment(project: Project) -> Mapping[str, str]:
    """The environment that this command needs."""
    return {"UV_CACHE_DIR": str(project.cache / "uv"), "UV_LINK_MODE": "copy", "UV_NO_PROGRESS": "1"}
