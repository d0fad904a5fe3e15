"""What is told of a machine in trouble: a disk that takes nothing, an output that nobody reads, systemd that is away."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.errors import sick_disk
from receiver.ledger.ledger import Ledger
from receiver.model import Change
from receiver.names import AppName
from receiver.paths import Layout
from receiver.serving import Serving
from receiver.settings import Settings
from receiver.story import examine_host


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "is full"), (errno.EDQUOT, "is full"), (errno.EROFS, "is read-only"), (errno.EIO, "fails"),
    ],
)  # fmt: skip
def test_a_disk_that_takes_nothing_is_told_as_what_it_is(code: int, said: str) -> None:
    failure = sick_disk(OSError(code, os.strerror(code)))
    assert failure and f"The disk of the server {said}" in failure.message
    assert failure.holds == "What is live was not touched." and failure.hint
    assert sick_disk(OSError(errno.ENOENT, "x")) is None and sick_disk(ValueError()) is None


class _Full:
    f_flag, f_bavail, f_files, f_favail = 0, 100, 100, 100

    def __init__(self, **values: int) -> None:
        vars(self).update(values)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (_Full(), "takes new files"), (_Full(f_bavail=0), "has no space left"), (_Full(f_favail=0), "has no inodes left"),
        (_Full(f_flag=os.ST_RDONLY), "is read-only"), (_Full(f_files=0, f_favail=0), "takes new files"),
    ],
)  # fmt: skip
def test_doctor_sees_a_file_system_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: _Full, said: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: found)
    finding = examine_host._takes_files(tmp_path)
    assert finding.what == f"the file system of {tmp_path} {said}"
    assert finding.well is (said == "takes new files") and (finding.well or finding.hint)


PRINTS = """
import sys, traceback
from receiver.system.journal import lines_may_be_lost
lines_may_be_lost("test")
sys.stdin.readline()
print("a line", flush=True)
print("a line", file=sys.stderr, flush=True)
try:
    raise ValueError
except ValueError:
    traceback.print_exc()
sys.exit(7)
"""


def test_a_line_that_nobody_takes_ends_nobody() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PRINTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin and child.stdout and child.stderr
        child.stdout.close()
        child.stderr.close()
        child.stdin.write(b"\n")
        child.stdin.close()
        assert child.wait(20) == 7


def test_doctor_tells_how_many_connections_an_app_may_have_and_who_asks_for_more(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    conf = tmp_path / "etc/nginx/nginx.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("events {\n    # worker_connections 9;\n    worker_connections 768;\n}\n")
    ledger = Ledger(layout.app(AppName("blog")))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    ledger.commit(ledger.open_release(Change.DEPLOY, "alice", serving=Serving(connections=2000)))
    told, asks = examine_host._connections(layout, Settings())
    assert told.well and told.what.startswith("288 requests") and "worker_connections 768" in told.what
    assert not asks.well and asks.subject == "blog" and "asks for 2000" in asks.what
    conf.write_text("events { worker_connections 8192; }")
    (told,) = examine_host._connections(layout, Settings())
    assert told.what.startswith("3000 requests")
