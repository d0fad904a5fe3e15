"""The runtimes shipit can build. Another one is one more file here.

Each module has `ORDER` (lower is asked earlier) and `plan(project)`, which answers None when the project is not its.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache

from receiver.plan.steps import BuildPlan, Project

Runtime = Callable[[Project], BuildPlan | None]


@cache
def runtimes() -> tuple[Runtime, ...]:
    """Every runtime, in the order they are asked; the last takes anything."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return tuple(module.plan for module in sorted(modules, key=lambda module: int(module.ORDER)))
