"""The runtimes shipit can build, in the order they are asked. Another one is one more file here and one more row."""

from __future__ import annotations

from collections.abc import Callable

from receiver.runtimes import plain
from receiver.runtimes.base import BuildPlan, Project
from receiver.runtimes.python import plan as python

Runtime = Callable[[Project], BuildPlan | None]

# The last takes anything.
RUNTIMES: tuple[Runtime, ...] = (python.plan, plain.plan)
