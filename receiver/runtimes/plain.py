"""Anything without a runtime of its own: scripts and programs that are run as they were pushed."""

from __future__ import annotations

from receiver.runtimes.base import BuildPlan, Project


def plan(project: Project) -> BuildPlan:
    """Nothing to install."""
    return BuildPlan("files", "", {}, ())
