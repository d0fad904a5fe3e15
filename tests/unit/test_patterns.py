"""What is looked for in files of an app costs no more than their size, whatever is in them."""

from __future__ import annotations

import re
import time
import tracemalloc
from pathlib import Path

from trees import FakeTree

from receiver.runtimes import php
from receiver.runtimes.python import django, installed
from receiver.runtimes.site import generators

ROOT = Path(__file__).parents[2] / "receiver"


def test_no_pattern_takes_lines_for_the_blanks_before_a_word() -> None:
    """`^\\s*` takes all empty lines that follow, at each of them: the square of their number."""
    files = [*ROOT.glob("runtimes/**/*.py"), *ROOT.glob("manifest/**/*.py"), ROOT / "inside/image.py"]
    found = [path.name for path in files if re.search(r"\^\\s[*+]", path.read_text())]
    assert len(files) > 40 and not found


def test_a_long_line_of_a_packages_metadata_is_read_once() -> None:
    began = time.process_time()
    for line in ("Name:" + " " * 8000 + "x" * 300, "Name: x" + " " * 8000 + "y" * 300, "Name: " + " x" * 4000):
        assert not [value for _, value in installed._FIELD.findall(line) if len(value) <= installed.LONGEST]
    assert installed._FIELD.findall("Name: a\nLicense:  MIT \nVersion: \n") == [("Name", "a"), ("License", "MIT ")]
    assert time.process_time() - began < 5


def test_settings_and_configurations_are_read_once_however_they_are_written() -> None:
    began = time.process_time()
    size = 10**6
    for text in (
        'SECRET_KEY = env("X"' + " " * size,
        "sqlite3 ROOT / " + " " * size,
        "MEDIA_ROOT = " + "BASE_DIR 'a " * (size // 12),
    ):
        found = django.find(FakeTree({"manage.py": "import django", "site1/settings.py": text}))
        assert found and not (found.secrets or found.database or found.media)
    assert generators.find(FakeTree({"conf.py": "project:\n" * (size // 9)})) is None
    assert time.process_time() - began < 5


def test_of_a_path_only_the_directories_that_can_be_mounted_are_kept_in_mind() -> None:
    tree = FakeTree({f"{number}/" + "a/" * 1000 + "b": "" for number in range(100)})
    tracemalloc.start()
    assert php._kept_open(tree) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20, "1000 beginnings of each path take 100 MiB"
