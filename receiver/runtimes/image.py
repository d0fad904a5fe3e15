"""A container image that was sent: its pointer is the tree (sources/image.py), and podman stores and runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from receiver.manifest import Pushed
from receiver.manifest.command import Server
from receiver.paths import IMAGE, PYTHON
from receiver.runtimes.base import BuildPlan, Evidence, Part, Project, Runtime, Slug, Step

POINTER = "shipit-image.json"  # in the commit: which image it is


class Image(Runtime):
    """Its process types, and what else a manifest says, are in the labels of the image."""

    name = "image"
    # What inside/image.py tells the launcher of the image that it has stored.
    makes = ("shipit-image.stored.json",)
    reads = (POINTER,)

    def finds(self, pushed: Pushed) -> Evidence | None:
        return Evidence(POINTER) if POINTER in pushed.tree.files() else None

    def server(self, command: str, pushed: Pushed) -> Server | None:
        # Whatever it is: no socket of the machine's is in a container.
        return Server("the image", only_port=True) if self.finds(pushed) else None

    def parts(self, slug: Slug) -> Iterator[Part]:
        try:
            said = json.loads(slug.read(POINTER, 2**16) or b"{}")
            name, version = said["name"] or "image", said["id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(name, str) and isinstance(version, str):
            yield Part("oci", name, version)

    def plan(self, project: Project) -> BuildPlan:
        step = Step("Storing the image", (str(PYTHON), "-IS", str(IMAGE), "load"))
        return BuildPlan(self.name, steps=(step,), image=True)
