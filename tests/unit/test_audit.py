"""The line of each command where no journal is: a file that stays small, and no reason for a command to fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from receiver.paths import Layout
from receiver.system import audit


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout = Layout(tmp_path)
    monkeypatch.setattr(audit, "_has_journal", lambda: False)
    monkeypatch.setattr(audit, "Layout", lambda: layout)
    return layout


def test_a_command_leaves_a_line_in_a_file_that_is_named_and_stays_small(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.home.mkdir(parents=True)
    monkeypatch.setattr(audit, "LARGEST", 2000)
    for number in range(50):
        audit.Audit("192.0.2.1").end(None, "ann", f"verb{number}", 0)
    assert audit.where() == f"tail -n 50 {layout.audit}"
    lines = layout.audit.read_text().splitlines()
    assert json.loads(lines[-1].partition(" ")[2])["verb"] == "verb49"
    assert layout.audit.stat().st_mode & 0o777 == 0o600
    files = sorted(layout.home.iterdir())
    assert [file.name for file in files] == ["audit.log", "audit.log.1"]
    assert all(file.stat().st_size < 2300 for file in files)


def test_what_cannot_be_written_fails_nobody(layout: Layout, tmp_path: Path) -> None:
    audit.Audit("").end(None, "ann", "nowhere", 0)
    layout.home.mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", layout.audit)  # noqa: PTH211
    audit.Audit("").bug(ValueError("no"))
    assert not (tmp_path / "elsewhere").exists()
