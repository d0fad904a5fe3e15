"""What builds and git keep of an app has a bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from receiver.inside.builder import bound_cache
from receiver.sources.git import caches

KIB = 2**10


def an_object(repo: Path, letter: str, age: int, size: int = 100 * KIB) -> Path:
    path = caches.lfs_object(repo, letter * 64)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def a_submodule(repo: Path, name: str, age: int) -> Path:
    path = caches.submodules(repo) / f"{name}.git"
    (path / "objects/pack").mkdir(parents=True)
    (path / "objects/pack/one.pack").write_bytes(b"x" * 100 * KIB)
    (path / "HEAD").write_text("ref: refs/heads/main\n")
    os.utime(path / "HEAD", (1e9 - age, 1e9 - age))
    return path


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    oldest, old, new = an_object(tmp_path, "a", 30), a_submodule(tmp_path, "lib", 20), an_object(tmp_path, "b", 10)
    assert caches.trim(tmp_path, 350 * KIB) == 0
    assert caches.trim(tmp_path, 250 * KIB) == 1 and not oldest.exists() and old.exists()
    assert caches.trim(tmp_path, 150 * KIB) == 1 and not old.exists() and new.exists()


def test_what_is_used_again_is_kept(tmp_path: Path) -> None:
    first, second = an_object(tmp_path, "a", 30), an_object(tmp_path, "b", 20)
    caches.used(first)
    assert caches.trim(tmp_path, 150 * KIB) == 1
    assert first.exists() and not second.exists()


def test_nothing_but_caches_is_ever_removed(tmp_path: Path) -> None:
    for name in ("objects/pack/one.pack", "refs/heads/main", "lfs/config", "HEAD"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 100 * KIB)
    before = sorted(tmp_path.rglob("*"))
    assert caches.trim(tmp_path, 0) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_builds_cache_is_emptied_when_it_is_too_large_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "uv/archive-v0/x").mkdir(parents=True)
    (tmp_path / "uv/archive-v0/x/big").write_bytes(b"x" * 3 * 2**20)
    (tmp_path / "link").symlink_to("/usr")
    bound_cache(tmp_path, 4 * 2**20)
    assert (tmp_path / "uv/archive-v0/x/big").exists() and capfd.readouterr().out == ""
    bound_cache(tmp_path, 2 * 2**20)
    assert list(tmp_path.iterdir()) == [] and Path("/usr/bin").exists()
    assert "`cache` in the server's settings" in capfd.readouterr().out
