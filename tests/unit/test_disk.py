from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from receiver.errors import HostFault, Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.system import disk
from receiver.system.run import PATH, run


def record(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order in which the kernel is asked for what durability is made of."""
    calls: list[str] = []
    real_write, real_fsync, real_rename = os.write, os.fsync, Path.rename

    def write(fd: int, data: bytes) -> int:
        calls.append("write")
        return real_write(fd, data)

    def fsync(fd: int) -> None:
        calls.append("fsync dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        real_fsync(fd)

    def rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    return calls


def test_a_replaced_file_is_durable_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record(monkeypatch)
    disk.write_atomically(tmp_path / "x", b"new", 0o640)
    assert calls == ["write", "fsync file", "rename", "fsync dir"]


def test_what_may_last_later_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record(monkeypatch)
    disk.write_atomically(tmp_path / "x", b"new", 0o640, lasts=disk.Lasts.CONTENT)
    disk.write_atomically(tmp_path / "y", b"new", 0o640, lasts=disk.Lasts.LATER)
    assert calls == ["write", "fsync file", "rename", "write", "rename"]


def test_the_name_of_a_release_is_kept_when_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(Layout(tmp_path).app(AppName("blog")))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    calls = record(monkeypatch)
    release = ledger.open_release(Change.DEPLOY, "alice")
    assert calls == ["write", "fsync file", "rename"], "whoever pushes waits for no more than it takes to be whole"
    ledger.keep_name(release)
    assert calls[3:] == ["fsync dir", "fsync dir"], "its record in it, and it among the releases"


def test_a_commit_is_one_rename_of_a_link_and_durable_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(Layout(tmp_path).app(AppName("blog")))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    release = ledger.open_release(Change.DEPLOY, "alice")
    calls = record(monkeypatch)
    ledger.commit(release)
    # The mark of nginx's pool, which need not last; and the link.
    assert calls == ["write", "rename", "rename", "fsync dir"]
    ledger.finish(release, Status.LIVE)
    assert calls[4:] == ["write", "fsync file", "rename", "fsync dir"]


def test_a_file_has_the_mode_asked_for_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        disk.write_atomically(tmp_path / "x", b"", 0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        disk.write_atomically(path, b"new", 0o644)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_one_target_or_the_other_and_never_none(tmp_path: Path) -> None:
    link = tmp_path / "current"
    disk.replace_symlink(link, "v0")
    seen, over = set(), threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(str(link.readlink()))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        disk.replace_symlink(link, f"v{number}")
    over.set()
    reader.join()
    assert len(seen) > 1 and seen <= {f"v{number}" for number in range(300)}


def test_a_directory_is_never_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"), disk.opened_dir(tmp_path / "link"):
        pass
    with disk.opened_dir(tmp_path) as at, pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        disk.make_dir(at, "link", 0o700, os.getuid(), os.getgid())
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o755


def test_making_a_directory_again_repairs_its_mode(tmp_path: Path) -> None:
    with disk.opened_dir(tmp_path) as at:
        assert disk.make_dir(at, "x", 0o2750, os.getuid(), os.getgid())
        (tmp_path / "x").chmod(0o777)
        assert not disk.make_dir(at, "x", 0o2750, os.getuid(), os.getgid())
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o2750


def test_removing_a_tree_leaves_what_its_links_point_at(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below/link").symlink_to(kept)
    (tree / "-rf").write_text("a name like an option")
    disk.remove_tree(tree)
    assert not tree.exists() and (kept / "file").read_text() == "x"
    (tmp_path / "link").symlink_to(kept)
    disk.remove_tree(tmp_path / "link")
    assert (kept / "file").exists()
    disk.remove_tree(tmp_path / "missing")


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    deep = "import os,sys; os.chdir(sys.argv[1])\nfor _ in range(1500): os.mkdir('d' * 9); os.chdir('d' * 9)"
    subprocess.run([sys.executable, "-c", deep, tree], check=True)
    disk.remove_tree(tree)
    assert not tree.exists()


def make_tree(path: Path) -> None:
    (path / "a/b").mkdir(parents=True)
    (path / "a/b/file").write_text("content")
    (path / "a/link").symlink_to("b/file")


def test_a_tree_keeps_its_digest_when_it_is_read_and_copied(tmp_path: Path) -> None:
    make_tree(tmp_path / "one")
    make_tree(tmp_path / "two")
    (tmp_path / "two/a/b/file").read_text()
    os.utime(tmp_path / "two/a/b/file", (0, 0))
    assert disk.digest_tree(tmp_path / "one", 99) == disk.digest_tree(tmp_path / "two", 99)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: (t / "a/b/file").unlink(),
        lambda t: (t / "a/b/file").write_text("cut"),
        lambda t: (t / "a/b/more").write_text(""),
        lambda t: (t / "a/b/file").chmod(0o600),
        lambda t: ((t / "a/link").unlink(), (t / "a/link").symlink_to("/etc/passwd")),
        lambda t: (t / "a/b/file").rename(t / "a/file"),
    ],
    ids=["lost", "truncated", "added", "mode", "link", "moved"],
)
def test_a_damaged_tree_has_another_digest(tmp_path: Path, damage: object) -> None:
    make_tree(tmp_path / "t")
    before = disk.digest_tree(tmp_path / "t", 99)
    damage(tmp_path / "t")  # type: ignore[operator]
    assert disk.digest_tree(tmp_path / "t", 99) != before


def test_the_digest_of_a_tree_is_what_older_versions_wrote_into_their_releases(tmp_path: Path) -> None:
    make_tree(tmp_path / "t")
    (tmp_path / "t/a.d").mkdir()
    for path, mode in {"a": 0o2750, "a/b": 0o2750, "a.d": 0o755, "a/b/file": 0o640}.items():
        (tmp_path / "t" / path).chmod(mode)
    assert disk.digest_tree(tmp_path / "t", 99) == "ffeacac22d507cddced05eb5933c6884e9128f599f42c1e06076c4822404279b"


def test_a_tree_that_is_too_large_too_deep_or_missing_has_no_digest(tmp_path: Path) -> None:
    make_tree(tmp_path / "t")
    with pytest.raises(Rejected):
        disk.digest_tree(tmp_path / "t", 3)
    (tmp_path / "deep" / "/".join("d" * disk.MAX_DEPTH)).mkdir(parents=True)
    with pytest.raises(Rejected, match="deep"):
        disk.digest_tree(tmp_path / "deep", 999)
    with pytest.raises(HostFault):
        disk.digest_tree(tmp_path / "missing", 3)


def test_a_lock_is_refused_while_held_and_free_when_its_holder_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = (
        "import sys,time\nfrom pathlib import Path\nfrom receiver.system import disk\n"
        "with disk.locked(Path(sys.argv[1]), wait=True): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, path], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with pytest.raises(BlockingIOError), disk.locked(path, wait=False):
        pass
    holder.kill()
    holder.wait()
    with disk.locked(path, wait=False):
        pass


def test_a_program_finds_a_clean_environment_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", "1")
    done = run(["/usr/bin/env"])
    assert done.out.splitlines() == [f"PATH={PATH}", "LANG=C.UTF-8"]
    assert run(["cat"]).out == ""


def test_a_failing_program_is_told_with_its_words_but_no_secret() -> None:
    with pytest.raises(HostFault) as caught:
        run(["sh", "-c", "echo hunter2 is wrong >&2; exit 3", "hunter2"], secrets=["hunter2"])
    told = "\n".join(caught.value.lines())
    assert "exit code 3" in told and "[hidden] is wrong" in told and "hunter2" not in told


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_how_a_program_ended_is_told_as_a_shell_does(script: str, code: int) -> None:
    assert run(["sh", "-c", script], check=False).code == code


def test_a_program_that_is_missing_or_too_slow_is_a_host_fault() -> None:
    with pytest.raises(HostFault, match="could not be started"):
        run(["/nonexistent/x"])
    with pytest.raises(HostFault, match="longer than"):
        run(["sleep", "9"], timeout=0.1)
