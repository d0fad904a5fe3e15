"""What a build is made of, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from receiver.manifest import Manifest, Tree
from receiver.settings import Settings


@dataclass(frozen=True)
class Step:
    """One command of a build. `environment` comes on top of the plan's; `installs`: it makes `.venv` or fills it,
    so it is left out when the release uses an environment that is there already."""

    title: str
    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    installs: bool = False


@dataclass(frozen=True)
class BuildPlan:
    """`environment_key`: equal keys mean equal environments; "" = this one is for one release only. `environment` is
    for every step; the config vars that the build may see come on top of it."""

    runtime: str
    environment_key: str
    environment: Mapping[str, str]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Project:
    """All that a runtime plans from. `tree` is the app's (already below `manifest.root`), `slug` where it will be
    unpacked and run, `cache` a directory that outlives releases, `uv` the program, beside shipit's own Python."""

    manifest: Manifest
    tree: Tree
    slug: Path
    cache: Path
    uv: Path
    settings: Settings

    @property
    def venv(self) -> Path:
        return self.slug / ".venv"
