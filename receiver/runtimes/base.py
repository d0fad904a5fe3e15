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
    so it is left out when the release uses an environment that is there already; `makes`: it makes an empty `.venv`,
    so it is left out when that is a copy of another's."""

    title: str
    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    installs: bool = False
    makes: bool = False


@dataclass(frozen=True)
class BuildPlan:
    """`environment_key`: equal keys mean equal environments; "" = this one is for one release only. `seed_key`: of a
    copy of an environment whose key is the same, the installing steps make what they make of an empty one; "" = never.
    `requires`: the requirements that decide the environment alone, as they were written (empty: other things do, too);
    `adds`, with some of them as arguments, installs those and what they need into an environment with all the others.
    `environment` is for every step; the config vars that the build may see come on top of it."""

    runtime: str
    environment_key: str
    environment: Mapping[str, str]
    steps: tuple[Step, ...]
    seed_key: str = ""
    requires: tuple[str, ...] = ()
    adds: Step | None = None


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
