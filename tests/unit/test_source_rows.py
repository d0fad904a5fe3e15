"""sources/all.py: its rows are words, so nothing else says that each leads to a source."""

from __future__ import annotations

import subprocess
import sys

import pytest

from receiver.model import Origin
from receiver.names import AppName, Oid
from receiver.paths import Layout
from receiver.sources.all import ALL, source_of


@pytest.mark.parametrize("kind", ALL)
def test_each_kind_leads_to_a_source_of_that_kind(kind: str) -> None:
    assert source_of(Layout().app(AppName("blog")), Origin(kind, Oid("0" * 40))).kind == kind


def test_a_command_on_a_release_of_git_imports_neither_other_sources_nor_runtimes() -> None:
    """A push, a config change and a rollback wait for every import (docs/performance.md)."""
    code = "import receiver.gate.listen, receiver.cli.config, receiver.story.rollback, sys; print(*sys.modules)"
    loaded = {*subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()}
    dear = {
        "receiver.sources.archive",
        "receiver.sources.image",
        "receiver.runtimes.all",
        "tarfile",
        "ctypes",
        "zipfile",
    }
    assert not loaded & dear
