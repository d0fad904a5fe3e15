"""The text for supervisord: programs as values and as files. Pure: release and paths in, text out.

A program's file holds only shipit's own names, numbers and paths. What an app wrote (its command, its config vars)
never goes into it: supervisor's files have no escapes, and a bad one keeps supervisord from starting at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from receiver import names
from receiver.errors import Rejected
from receiver.model import ProcessType, Release
from receiver.names import AppName, TypeName
from receiver.paths import LIBEXEC, PYTHON, Layout
from receiver.system.render import render

SUPERVISED = LIBEXEC / "supervised"


@dataclass(frozen=True)
class Name:
    """The parts of a program's name."""

    app: AppName
    release: int
    process: TypeName
    index: int

    def __str__(self) -> str:
        return f"{self.app}.v{self.release}.{self.process}.{self.index}"

    @classmethod
    def parse(cls, text: str) -> Name | None:
        """None if it is not the name of an app's process."""
        words = text.split(".")
        try:
            app, release, process, index = words
            return cls(names.app_name(app), names.release_number(release), names.type_name(process), int(index))
        except (ValueError, Rejected):
            return None


@dataclass(frozen=True)
class Program:
    """What supervisord keeps running. `command` is split like a shell would, so its words are quoted where needed.

    `once`: it runs when supervisord starts and is not started again. `startsecs`: how long it must stay up to count as
    started. `drain`: seconds from `stop_signal` to SIGKILL, which with `kill_group` goes to its whole process group.
    A start that fails is tried again for ever, each time a second later than before.
    """

    name: str
    command: str
    log: Path
    boot: bool = True
    startsecs: int = 1
    drain: int = 10
    stop_signal: str = "TERM"
    kill_group: bool = False
    once: bool = False

    def text(self) -> str:
        return render("supervisor/program.conf.j2", **self.__dict__)


def program(layout: Layout, release: Release, process: ProcessType, index: int, *, boot: bool) -> Program:
    """One process of a release."""
    name = Name(release.app, release.runs_as, process.type, index)
    words = [str(PYTHON), "-IS", str(SUPERVISED), f"--memory={process.limits.memory}"]
    words += [f"--tasks={process.limits.tasks}", f"--notify={process.check.kind.value}"]
    words += [release.app, str(release.runs_as), process.type, str(index)]
    return Program(
        str(name),
        " ".join(words),
        layout.log / release.app / f"v{release.runs_as}" / f"{process.type}.{index}.log",
        boot=boot,
        drain=process.drain,
        kill_group=True,
    )
