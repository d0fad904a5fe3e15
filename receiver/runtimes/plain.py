"""Anything without a runtime of its own: scripts and programs that are run as they were pushed."""

from __future__ import annotations

from receiver.manifest import Pushed
from receiver.runtimes.base import BuildPlan, Evidence, Project, Runtime


class Plain(Runtime):
    """Takes any project that no other runtime takes, and installs nothing."""

    name = "files"

    def finds(self, pushed: Pushed) -> Evidence | None:
        return Evidence("", weak=True)

    def plan(self, project: Project) -> BuildPlan:
        return BuildPlan(self.name)
