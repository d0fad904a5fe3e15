"""What runs on libraries that were replaced: by the kernel's own word, here of a real process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.system import libraries

LINE = "7f5f-7f6a r-xp 00026000 00:2c 1021 "


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (LINE + "   /usr/lib/x86_64-linux-gnu/libc.so.6 (deleted)", ["libc.so.6"]),
        (LINE + "   /usr/bin/python3.11.dpkg-new (deleted)", ["python3.11"]),
        (LINE + "   /lib64/libz.so.1 (deleted)", ["libz.so.1"]),
        (LINE + "   /usr/lib/libc.so.6", []),
        ("7f5f-7f6a r--p 0 0:2c 1021    /usr/lib/libc.so.6 (deleted)", []),
        (LINE + "   /var/lib/shipit/apps/blog/slugs/v1/own.so (deleted)", []),
        (LINE + "   /memfd:x (deleted)", []),
        (LINE + "   /usr/lib/a\x1b[2Jb.so (deleted)", []),
    ],
)
def test_what_the_system_has_replaced_is_told_by_its_name(line: str, found: list[str]) -> None:
    assert libraries.gone(f"{LINE} [vdso]\n{line}\n{LINE} /usr/lib/other.so\n") == found


def test_what_a_process_started_counts_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sleeper"
    shutil.copy2("/usr/bin/sleep", program)
    monkeypatch.setattr(
        libraries, "_GONE", libraries.re.compile(libraries._GONE.pattern.replace("/(?:usr/", f"(?:{tmp_path}/"), 8)
    )
    code = f"import subprocess; subprocess.Popen([{str(program)!r}, '30']); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout and parent.stdout.readline()
            assert libraries.replaced([parent.pid]) == []
            program.unlink()
            assert libraries.replaced([parent.pid]) == ["sleeper"]
        finally:
            for pid in {parent.pid} | libraries.family.below(parent.pid):
                libraries.family.kill([pid])
