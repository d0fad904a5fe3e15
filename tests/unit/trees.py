"""A tree in memory, for tests of what is read from one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from receiver.manifest import Manifest
from receiver.runtimes.build import build_plan
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings


class FakeTree:
    """`receiver.manifest.Tree` of a few files given as text."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self._content = {path: text if isinstance(text, bytes) else text.encode() for path, text in files.items()}

    def files(self) -> Mapping[str, str]:
        return {path: hashlib.sha1(content).hexdigest() for path, content in self._content.items()}

    def read(self, path: str) -> bytes | None:
        content = self._content.get(path)
        return content if content is not None and len(content) <= 2**20 else None

    def links(self) -> Mapping[str, str]:
        return {}


def read(files: Mapping[str, str]) -> Manifest:
    return read_manifest(FakeTree({"Procfile": "web: x\n", **files}))


def steps(files: Mapping[str, str], described: str = "") -> tuple[list[str], Mapping[str, str]]:
    tree = FakeTree({"Procfile": "web: x\n", **files})
    place = Path("/nowhere")
    plan, _ = build_plan(
        read_manifest(tree),
        tree,
        slug=place,
        cache=place,
        tools=place,
        settings=Settings(),
        described=lambda: described,
    )
    return [step.title for step in plan.steps], plan.environment
