"""What the user sees while a release is made: it is written to the release's log, which `follow` relays.

Lines from a build or an app are untrusted text: control characters are removed, long lines are cut, and the total is
limited, so that no output can fill the disk or look like shipit's own (threat row 58).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from receiver.errors import printable, sick_disk

MAX_LINE = 4096
MAX_OUTPUT = 8 * 2**20
SECRET_MIN = 8
LAST = 100  # enough to reach above a traceback or two, to the line that names a missing compiler


class Say:
    """Writes the log of one release. Thread safe: a line is one write(2) with O_APPEND."""

    def __init__(self, log: Path) -> None:
        self._fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self.seconds: list[tuple[str, float]] = []
        self._left = MAX_OUTPUT
        self._secrets: list[str] = []
        self.last: deque[str] = deque(maxlen=LAST)  # the newest lines of what others have printed

    def hide(self, values: Iterable[str]) -> None:
        """From now on show these values of config vars as `[hidden]` in what an app prints. Our own lines keep them:
        the app's host name may be the value of a config var, too, and users need it.

        A value with line breaks is hidden line by line. Short values and plain words are not hidden: they are no
        secrets, and the text would become unreadable where they mean something else.
        """
        lines = {line.strip() for value in values for line in value.splitlines()}
        found = {line for line in lines if len(line) >= SECRET_MIN and not line.isalpha()}
        # The longest first: one value may be part of another.
        self._secrets = sorted({*self._secrets, *found}, key=len, reverse=True)

    def close(self) -> None:
        os.close(self._fd)

    def step(self, title: str) -> None:
        """A step begins: `-----> Starting web.1`."""
        self._write(f"-----> {title}")

    def line(self, text: str) -> None:
        """One indented line of our own below the step."""
        self._write(f"       {text}")

    def foreign(self, text: str) -> None:
        """One indented line that an app has printed, with secrets hidden."""
        self.last.append(text)
        self._write(f"       {text}", hide=True)

    def warn(self, text: str) -> None:
        """A line that the reader must not miss: ` !     text`."""
        self._write(f" !     {text}")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record how long the block took, in seconds, under `name` in the release's record."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds.append((name, round(time.monotonic() - began, 3)))

    @contextmanager
    def output(self) -> Iterator[int]:
        """A file descriptor whose lines end up in the log, cleaned and bounded; drained when the block ends."""
        reader, writer = os.pipe()
        pump = threading.Thread(target=self._pump, args=(reader,), daemon=True)
        pump.start()
        try:
            yield writer
        finally:
            os.close(writer)
            # A process that a build left behind may hold the pipe open; the sandbox kills it, but do not wait for that.
            pump.join(timeout=5)

    def _pump(self, reader: int) -> None:
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            rest, endless = b"", False
            while chunk := pipe.read(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if not endless:
                        self._foreign(line)
                    endless = False
                # A progress bar overwrites one line again and again: keep its last state.
                rest = rest[rest.rfind(b"\r", 0, -1) + 1 :]
                if len(rest) > MAX_LINE:
                    if not endless:
                        self._foreign(rest)
                    rest, endless = b"", True
            if rest and not endless:
                self._foreign(rest)

    def _foreign(self, line: bytes) -> None:
        if self._left <= 0:
            return
        self._left -= min(len(line), MAX_LINE) + 8
        if self._left <= 0:
            self.warn(f"The output is longer than {MAX_OUTPUT // 2**20} MiB; the rest is not kept.")
            return
        text = clean(line)
        self.foreign(text[:MAX_LINE])
        if len(text) > MAX_LINE:
            self.line(f"(That line is longer than {MAX_LINE} characters; the rest of it is not kept.)")

    def _write(self, text: str, *, hide: bool = False) -> None:
        for secret in self._secrets if hide else ():
            text = text.replace(secret, "[hidden]")
        line = printable(text[: MAX_LINE + 16]).replace("\n", "\\n")
        try:
            os.write(self._fd, line.encode(errors="replace") + b"\n")
        except OSError as error:
            # If the disk has no room, the line is lost: a release must not fail, or a build hang, for that.
            if not sick_disk(error):
                raise


def clean(line: bytes) -> str:
    """A line of an app's output as printable text: what a carriage return overwrote is dropped, escapes are removed."""
    text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode(errors="replace")
    if "\x1b" in text:
        import re

        text = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)", "", text)
    return "".join(c if c.isprintable() or c == " " else " " if c == "\t" else "" for c in text)
