"""What a failed build or release lacks, and what to type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receiver.model import Change, Release, Status
from receiver.names import AppName
from receiver.story.advice import advice, build_advice
from receiver.system import apt

BLOG = Release(app=AppName("blog"), number=3, change=Change.DEPLOY, status=Status.BUILDING, by="a", created=0.0)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("KeyError: 'SECRET_KEY'", "build: {config: [SECRET_KEY]}"),
        ("django.core.exceptions.ImproperlyConfigured: Set the DATABASE_URL environment variable", "config: [DATABASE_URL]"),
        ("decouple.UndefinedValueError: API_KEY not found. Declare it", "config: [API_KEY]"),
        ("Error: pg_config executable not found.", "apt:allow libpq-dev"),
        ("/bin/bash: line 1: pkg-config: command not found", "apt:allow pkg-config"),
        ("fatal error: ffi.h: No such file or directory", "apt:allow libffi-dev"),
        ("error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory", "apt:allow build-essential"),
        ("error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'", "apt:allow build-essential"),
        ("Please install pkg-config on your system or set the ICU_VERSION environment", "apt:allow libicu-dev pkg-config"),
        ("run Composer with `--ignore-platform-req=ext-curl --ignore-platform-req=ext-dom`", "apt:allow php-curl php-xml"),
        ("Because the current Python version (3.11.2) does not satisfy Python>=3.12 and you", "python: 3.12"),
        ("make: *** No rule", ""),
    ],
)  # fmt: skip
def test_a_failed_build_names_what_is_missing_and_what_to_type(line: str, told: str) -> None:
    found = build_advice(BLOG, ["Installing", line, "× Failed to build"])
    assert told in found and bool(told) == bool(found)


def test_who_lacks_a_header_is_told_of_the_compiler_in_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "missing", lambda names: [name for name in names if name != "there"])
    line = "Error: pg_config executable not found."
    found = build_advice(replace(BLOG, runtime="python 3.12 + node"), [line])
    assert "apt: [libpq-dev, build-essential, python3-dev]" in found
    assert "apt: [ffmpeg]" in build_advice(replace(BLOG, runtime="python"), ["sh: ffmpeg: not found"])


def test_what_may_not_be_written_is_answered_with_the_line_of_storage() -> None:
    at = "/var/lib/shipit/apps/blog/slugs/v3"
    assert "storage: [logs]" in advice(BLOG.app, [f"OSError: [Errno 30] Read-only file system: '{at}/logs/app.log'"])
    assert "storage: [media/x]" in advice(BLOG.app, [f"PermissionError: [Errno 13] Permission denied: '{at}/media/x'"])
    assert "storage" not in advice(BLOG.app, ["OSError: [Errno 30] Read-only file system: '/opt/x'"])


def test_a_build_that_makes_a_place_of_the_data_is_told_that_it_is_there() -> None:
    mounted = replace(BLOG, storage=(("logs", "logs"), ("up", "public/up")))
    assert "mkdir -p logs" in build_advice(mounted, ["mkdir: cannot create directory ‘logs’: File exists"])
    assert "mkdir -p public/up" in build_advice(mounted, ["FileExistsError: [Errno 17] File exists: 'public/up'"])
    for other in ("my-logs", "logs/old", "src/logs"):
        assert not build_advice(mounted, [f"mkdir: cannot create directory '{other}': File exists"]), other
