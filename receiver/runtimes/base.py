"""The interface of a runtime, and the parts of a build, as values.

A runtime is one file (or folder) here and one row of `all.py`; tests/contract tests each against this interface.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from receiver.manifest import Manifest, Problems, Pushed, Tree
from receiver.manifest.command import Server
from receiver.model import ProcessEnv
from receiver.names import ConfigKey
from receiver.settings import Settings


@dataclass(frozen=True)
class Step:
    """One command of a build, run in the slug. `environment` is added to the plan's."""

    title: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A directory at the top of the slug that a build fills, and that later releases reuse if they can.

    `key`: equal keys mean equal directories, so a later release gets a link to this one; "" = each release has its own.
    `steps` fill it from nothing. If there is no equal one, a copy of one with the same `seed_key` ("" = never) is
    completed by `seeded`. `copier` is the module that makes such a copy, with the functions `copy(source, target)`;
    `finish(source, target)`, after the steps; `contents(directory)`, the set of what is installed; `settle(directory)`,
    after every install, of a copy or not; `alive(directory)`: whether it may be linked to.

    `requires`: everything that is asked for, one line for each package (or file, if the packages are not known). If a
    line is missing in a later build, that package has left, and nothing that it may have written is reused. `adds`,
    with some of these lines as arguments, adds them to a directory that has all the others.
    """

    name: str
    key: str
    steps: tuple[Step, ...]
    seed_key: str = ""
    seeded: tuple[Step, ...] = ()
    copier: str = ""
    requires: tuple[str, ...] = ()
    adds: Step | None = None


@dataclass(frozen=True)
class BuildPlan:
    """`runtime`: its name and the wanted version, for people. `made` come first, then `steps`, which every build runs.
    `environment` is for every step; the config vars that the build may see override it. `image`: the build makes a
    container image (inside/image.py), and the release's processes are containers. `machine`: it makes the disk of a
    virtual machine (inside/disk.py), which is the release's process. `pulls`: a text that names the registry images
    that the build fetches."""

    runtime: str
    environment: Mapping[str, str] = field(default_factory=dict)
    made: tuple[Made, ...] = ()
    steps: tuple[Step, ...] = ()
    image: bool = False
    machine: bool = False
    pulls: str = ""


@dataclass(frozen=True)
class Project:
    """Everything that a runtime plans from. `tree` is the app's (already below `manifest.root`), `slug` where it will
    be unpacked and run, `cache` a directory of the app's builds that outlives releases and that its processes cannot
    read, `tools` the directory of shipit's own programs. `described` asks git for `TAG-COUNT-gCOMMIT`
    (git-describe(1)), or `COUNT-gCOMMIT` if there is no tag."""

    manifest: Manifest
    tree: Tree
    slug: Path
    cache: Path
    tools: Path
    settings: Settings
    described: Callable[[], str] = str


@dataclass(frozen=True)
class Evidence:
    """`what` shows that a project is of this runtime: a file, or a key of shipit.yml. `weak`: it counts only if no
    other runtime has found more. `alone`: no other runtime counts beside it. `last`: it counts, alone, if nothing that
    the others have found can be run."""

    what: str
    weak: bool = False
    alone: bool = False
    last: bool = False


@dataclass(frozen=True)
class Suggestion:
    """Used if there is no Procfile: the command of `web`, or the directory that nginx serves; `notice` tells the pusher
    why. `others`: further processes (type, command); they do not run until they are scaled. `release`: the release
    command. `guess`: used only if nothing else says how the app runs (another runtime, a Dockerfile)."""

    notice: str
    web: str = ""
    static: str = ""
    others: tuple[tuple[str, str], ...] = ()
    release: str = ""
    guess: bool = False


@dataclass(frozen=True)
class Asked:
    """Config vars that a project reads and that shipit can supply: `defaults` with a value, `secrets` with a random
    value that is made once and kept."""

    defaults: tuple[tuple[ConfigKey, str], ...] = ()
    secrets: tuple[ConfigKey, ...] = ()


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a release that was well when it was built. `dead`: its processes cannot start again. `hint`:
    what to do, if building it again does not help."""

    what: str
    dead: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Part:
    """Something that was installed for a release. `kind` is a type of a package URL (`pypi`, `npm`, `golang`, `gem`,
    `composer`, `deb`, `rpm`, `generic`), `license` as the part itself says; `tool`: the release runs on it or was built
    with it, so it is no library of the app; `more`: further parts of its name, such as the architecture of a deb."""

    kind: str
    name: str
    version: str
    license: str = ""
    tool: bool = False
    more: tuple[tuple[str, str], ...] = ()


class Slug(Protocol):
    """Read access to what a build has left: untrusted data. Paths are relative, with `/`; no link is followed."""

    def names(self, directory: str) -> list[str]:
        """The names in a directory, sorted; [] if it does not exist."""

    def read(self, path: str, most: int) -> bytes:
        """The first `most` bytes of a regular file; b"" if it does not exist."""


class Runtime:
    """What makes a slug of a tree. `name` is a word; `makes` are the names at the slug's top that only its build may
    make, `reads` the files at the tree's top that decide what it does, `tools` the programs that it needs beside shipit's,
    `headers` the packages of Debian that whatever is compiled for it needs beside a compiler. `image`: what it makes are
    container images. A runtime has `finds` and `plan`; the rest are chances to say more.

    All of it is pure, and all but `plan` runs before a push is taken: reading the tree is cheap, anything else is not.
    """

    name: str = ""
    makes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    image: bool = False

    def finds(self, pushed: Pushed) -> Evidence | None:
        """Why this project is one of this runtime's; None = it is not. Several runtimes may find one project."""
        raise NotImplementedError

    def plan(self, project: Project) -> BuildPlan:
        """The build; raises Rejected with file and line when the files cannot be obeyed."""
        raise NotImplementedError

    def process(self, project: Project) -> ProcessEnv:
        """What the processes find in their environment; the release records it, and the launcher applies it."""
        return ProcessEnv()

    def version(self, pushed: Pushed) -> str:
        """The version that the project wants of the runtime, "" = any; raises Rejected when it cannot be read."""
        return pushed.settings.versions.get(self.name, "")

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        """How to start the project when it has no Procfile; raises Rejected when only a line is missing for that."""
        return None

    def example(self, pushed: Pushed) -> str:
        """A line for a Procfile, when none is there and nothing is suggested; "" = no idea."""
        return ""

    def server(self, command: str, pushed: Pushed) -> Server | None:
        """The web server that a command starts, when `process` tells it where to listen."""
        return None

    def command(self, command: str) -> tuple[str, str]:
        """A process's command without the runner that it went through, which the build has done the work of, and the
        runner's name; the command as it is, and "", when there is none."""
        return command, ""

    def above(self, tree: Tree, root: str, problems: Problems) -> None:
        """Add to `problems` what the whole repository has that counts for the app in its directory `root`."""

    def storage(self, pushed: Pushed) -> tuple[tuple[str, str], ...]:
        """What the language's own framework writes beside the code: of the app's data, and where (Manifest.storage)."""
        return ()

    def asks(self, pushed: Pushed) -> Asked:
        """Config vars that the project's settings read, and that users should not have to set."""
        return Asked()

    def writes(self, pushed: Pushed) -> list[tuple[str, str]]:
        """What this project's own settings have it write beside its code, as lines of `storage`, for `shipit init`."""
        return []

    def notices(self, pushed: Pushed) -> list[str]:
        """Lines for the pusher about what will not work as the project has it, each with what to write."""
        return []

    def advice(self, line: str) -> str:
        """What to write after a build or a start that has failed and printed this line; "" when nothing is known of it."""
        return ""

    def parts(self, slug: Slug) -> Iterator[Part]:
        """What this runtime has installed there. Run as the builder's user, with nothing to write; raises nothing,
        whatever the files hold."""
        return iter(())

    def trouble(self, slug: Path) -> Trouble | None:
        """What the machine has done since to what the processes of a live slug run on. As root: nothing is read that a
        build has written, and nothing is run."""
        return None

    def check(self, pushed: Pushed, problems: Problems) -> None:
        """Add to `problems` what is wrong with the project as this runtime sees it."""


def stamp(program: str) -> str:
    """Which build of a program the server itself has: another word after each upgrade of it, "" if there is none."""
    with suppress(OSError):
        known = os.stat(program)  # noqa: PTH116
        return f"{known.st_size} {known.st_mtime_ns}"
    return ""
