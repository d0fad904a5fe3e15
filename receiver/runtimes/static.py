"""Pages that nginx serves by itself: an index.html without anything that runs, or `static` in shipit.yml."""

from __future__ import annotations

from receiver.manifest import Pushed
from receiver.manifest.shipit_yml import NAME
from receiver.runtimes import unserved
from receiver.runtimes.base import BuildPlan, Evidence, Project, Runtime, Suggestion
from receiver.runtimes.image import DOCKERFILES

INDEX = "index.html"
# Usual names of the directory with the pages, if there are none at the top.
PLACES = ("public", "site", "www", "html", "htdocs", "public_html", "dist", "_site", "docs")


class Static(Runtime):
    """No process: nginx serves the directory as it is after the build, until the next release."""

    name = "static"

    def finds(self, pushed: Pushed) -> Evidence | None:
        if pushed.settings.static:
            return Evidence(f"static in {NAME}")
        place = _place(pushed)
        return Evidence(f"{place}/{INDEX}".removeprefix("./"), weak=True) if place else None

    def plan(self, project: Project) -> BuildPlan:
        return BuildPlan(f"static {project.manifest.static}")

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        place = _place(pushed)
        if not place:
            return None
        where = "an" if place == "." else f"{place} has an"
        told = f"No Procfile, and {where} {INDEX}: nginx serves this directory (static: {place} in {NAME})."
        return Suggestion(told, static=place)


def _place(pushed: Pushed) -> str:
    """The directory of the pages, "" if there is none."""
    files = pushed.tree.files()
    if pushed.procfile:
        return ""
    if INDEX in files:
        return "."
    # A program that nothing here builds may have a manual in HTML, too; and a Dockerfile says what it runs.
    if unserved.language(pushed.tree, ())[0] or any(name in files for name in DOCKERFILES):
        return ""
    return next((place for place in PLACES if f"{place}/{INDEX}" in files), "")
