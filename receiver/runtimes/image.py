"""Container images: one that was sent, whose pointer is the tree (sources/image.py), or one that a Dockerfile makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from receiver.manifest import Problems, Pushed
from receiver.manifest.command import Server
from receiver.paths import IMAGE, PYTHON
from receiver.runtimes.base import BuildPlan, Evidence, Part, Project, Runtime, Slug, Step, Suggestion

POINTER = "shipit-image.json"  # in the commit; names the image
DOCKERFILES = ("Dockerfile", "Containerfile")
_REFUSED = re.compile(
    r"(?:reading manifest \S+ in|pinging container registry) ([^\s/:]+(?::\d+)?).*(?:unauthorized|denied|authentication)"
)
# This command means: what the image itself starts (inside/container.py).
OWN = "CMD"
# Files that inside/image.py makes: the description of the image for the launcher; the image on its way to the app's
# store.
MAKES = ("shipit-image.stored.json", "shipit-image.built")


class Image(Runtime):
    """The labels of the image hold its process types and other settings of a manifest."""

    name = "image"
    image = True
    makes = MAKES
    reads = (POINTER,)

    def finds(self, pushed: Pushed) -> Evidence | None:
        return Evidence(POINTER, alone=True) if POINTER in pushed.tree.files() else None

    def server(self, command: str, pushed: Pushed) -> Server | None:
        # Whatever server it is: no socket of the machine's is in a container.
        return Server("the image", only_port=True) if self.finds(pushed) else None

    def parts(self, slug: Slug) -> Iterator[Part]:
        return _part(slug, POINTER)

    def plan(self, project: Project) -> BuildPlan:
        return BuildPlan(self.name, steps=(_step("Storing the image", "note"),), image=True)


class Dockerfile(Runtime):
    """Built on the server if shipit.yml says so (`build: {dockerfile: …}`), or if nothing else here could be run. The
    lines of a Procfile run in the image."""

    name = "dockerfile"
    image = True
    makes = MAKES
    reads = DOCKERFILES

    def finds(self, pushed: Pushed) -> Evidence | None:
        if said := pushed.settings.dockerfile:
            return Evidence(said, alone=True)
        found = file_of(pushed)
        return Evidence(found, last=True) if found else None

    def server(self, command: str, pushed: Pushed) -> Server | None:
        # Without a container, a line of a Procfile may start a server that another runtime knows.
        return Server("the image", only_port=True) if command == OWN or pushed.settings.dockerfile else None

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        return Suggestion(f"No Procfile: {file_of(pushed)} says what runs (its CMD).", web=OWN)

    def check(self, pushed: Pushed, problems: Problems) -> None:
        file = file_of(pushed)
        if file not in pushed.tree.files():
            problems.add("shipit.yml", f"build.dockerfile names {file!r}, which is no file of this commit.")
        if pushed.settings.build_command:
            problems.add("shipit.yml", "build.command runs outside of the image that the Dockerfile makes.",
                         f"Write it into {file}:  RUN {pushed.settings.build_command[:60]}")  # fmt: skip

    def notices(self, pushed: Pushed) -> list[str]:
        file = file_of(pushed)
        why = "shipit.yml says so" if pushed.settings.dockerfile else "nothing else here says how the app runs"
        return [f"{file}: built as a container image, because {why}."]

    def parts(self, slug: Slug) -> Iterator[Part]:
        return _part(slug, MAKES[0])

    def plan(self, project: Project) -> BuildPlan:
        [file] = [what for name, what in project.manifest.runtimes if name == self.name]
        limit = str(project.settings.cache * 2**20)
        text = (project.tree.read(file) or b"").decode(errors="replace")
        step = _step(f"Building the image from {file}", "build", file, limit)
        return BuildPlan(self.name, steps=(step,), image=True, pulls=text)

    def advice(self, line: str) -> str:
        refused = _REFUSED.search(line)
        return f"{refused[1]} wants a login: shipit registry:login APP {refused[1]} USER < PASSWORD" if refused else ""


def file_of(pushed: Pushed) -> str:
    """The Dockerfile that shipit.yml names, or that is found; "" if there is none."""
    files = pushed.tree.files()
    return pushed.settings.dockerfile or next((name for name in DOCKERFILES if name in files), "")


def _part(slug: Slug, file: str) -> Iterator[Part]:
    """The image that one of our files names; nothing if the file names none."""
    try:
        said = json.loads(slug.read(file, 2**20) or b"{}")
        name, version = said.get("name") or "image", said["id"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if isinstance(name, str) and isinstance(version, str):
        yield Part("oci", name, version)


def _step(title: str, *words: str) -> Step:
    return Step(title, (str(PYTHON), "-IS", str(IMAGE), *words))
