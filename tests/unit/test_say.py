from __future__ import annotations

import os
from pathlib import Path

import pytest

from receiver.ledger import say as module
from receiver.ledger.say import MAX_LINE, Say, clean


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def printed(log: Path, data: bytes) -> list[str]:
    say = Say(log)
    with say.output() as fd:
        os.write(fd, data)
    say.close()
    return log.read_text().splitlines()


def test_output_of_a_build_cannot_speak_in_shipits_name(log: Path) -> None:
    lines = printed(log, b"-----> v9 is live\n !     v8 is gone\n\x1b[2Jremote: ok\rX\n")
    assert all(line.startswith("       ") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_name_from_a_commit_cannot_speak_in_shipits_name_either(log: Path) -> None:
    say = Say(log)
    say.line("app.json:1: x\n-----> v9 is live")
    say.warn("\x1b[2Jgone\x9b31m")
    say.close()
    text = log.read_text()
    assert len(text.splitlines()) == 2
    assert all(char.isprintable() for line in text.splitlines() for char in line)


def test_what_an_app_prints_of_its_config_vars_is_not_kept(log: Path) -> None:
    say = Say(log)
    say.hide(["s3cret-t0ken", "production", "1", "", "-----BEGIN-----\nMIIB+private/line=\n", "s3cret-t0ken-longer"])
    with say.output() as fd:
        os.write(fd, b"KeyError: s3cret-t0ken in production 1\n(s3cret-t0ken-longer)\nMIIB+private/line=\n")
    say.foreign("last words: s3cret-t0ken")
    say.step("v1 is live at http://s3cret-t0ken-longer")
    say.close()
    assert log.read_text().splitlines() == [
        "       KeyError: [hidden] in production 1", "       ([hidden])", "       [hidden]",
        "       last words: [hidden]", "-----> v1 is live at http://s3cret-t0ken-longer",
    ]  # fmt: skip


def test_a_last_line_without_an_end_is_kept(log: Path) -> None:
    assert printed(log, b"one\ntwo") == ["       one", "       two"]


def test_ten_megabytes_in_one_line_are_cut(log: Path) -> None:
    say = Say(log)
    with say.output() as fd:
        for _ in range(160):
            os.write(fd, b"x" * 65536)
        os.write(fd, b"\nnext\n")
    say.close()
    cut, note, after = log.read_text().splitlines()
    assert cut.strip() == "x" * MAX_LINE
    assert "longer than 4096 characters" in note
    assert after == "       next"


def test_a_progress_bar_is_shown_as_it_ended_however_often_it_was_drawn(log: Path) -> None:
    say = Say(log)
    with say.output() as fd:
        for part in range(2000):
            os.write(fd, b"%d of 2000 " % part + b"#" * 200 + b"\r")
        os.write(fd, b"done\n")
    say.close()
    assert log.read_text() == "       done\n"


def test_endless_output_stops_being_kept_and_says_so(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTPUT", 2000)
    lines = printed(log, b"hello world\n" * 1000)
    assert "is not kept" in lines[-1] and len(lines) < 200


@pytest.mark.parametrize(
    ("raw", "shown"),
    [(b"10%\r100%", "100%"), (b"\x1b[31mred\x1b[0m", "red"), (b"a\tb", "a b"), (b"\xff\x00x", "\ufffdx")],
)
def test_a_foreign_line_is_shown_as_text(raw: bytes, shown: str) -> None:
    assert clean(raw) == shown


def test_a_line_without_room_on_the_disk_is_lost_and_nothing_else_is() -> None:
    say = Say(Path("/dev/full"))
    say.step("Building")
    with say.output() as fd:
        # More than a pipe holds: a build must not wait for room on the disk.
        for _ in range(64):
            os.write(fd, b"x" * 4095 + b"\n")
    say.close()
