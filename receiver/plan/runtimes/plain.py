"""Anything without a runtime of its own: scripts and programs that are run as they were pushed."""

from __future__ import annotations

from receiver.plan.steps import BuildPlan, Project

ORDER = 100


def plan(project: Project) -> BuildPlan:
    """Nothing to install."""
    return BuildPlan("files", "", {}, ())
