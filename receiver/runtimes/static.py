"""Pages that nginx serves by itself: an index.html without anything that runs, or `static` in shipit.yml."""

from __future__ import annotations

from receiver.manifest import Pushed
from receiver.manifest.shipit_yml import NAME
from receiver.runtimes.base import BuildPlan, Evidence, Project, Runtime, Suggestion

INDEX = "index.html"


class Static(Runtime):
    """No process: what the directory holds when the build is done is served until the next release."""

    name = "static"

    def finds(self, pushed: Pushed) -> Evidence | None:
        if pushed.settings.static:
            return Evidence(f"static in {NAME}")
        # Whoever has a Procfile says what to run; and a top with sources in it is nothing to show to everybody.
        return Evidence(INDEX, weak=True) if INDEX in pushed.tree.files() and not pushed.procfile else None

    def plan(self, project: Project) -> BuildPlan:
        return BuildPlan(f"static {project.manifest.static}")

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        told = f"No Procfile, and an {INDEX}: nginx serves this directory (static: . in {NAME})."
        return Suggestion(told, static=".") if INDEX in pushed.tree.files() else None
