"""The only module that starts programs (launch.py and builder.py stand alone).

Always an argument vector, never a shell; a clean environment unless one is given. A program inherits only standard
input, output and error, and the descriptors in `pass_fds`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from receiver.errors import HostFault, Rejected

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLEAN: Mapping[str, str] = {"PATH": PATH, "LANG": "C.UTF-8"}
HIDDEN = "[hidden]"
PIPE = subprocess.PIPE
Program: TypeAlias = "subprocess.Popen[bytes]"


@dataclass(frozen=True)
class Result:
    """How a program ended, and its output; `code` is 128 + the signal if one killed it."""

    code: int
    out: str
    err: str


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    input: bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    user: str | None = None,
    pass_fds: Sequence[int] = (),
    secrets: Sequence[str] = (),
) -> Result:
    """Run a program to its end.

    `env` replaces the clean environment. `stdin` and `stdout` are descriptors (default: nothing, and captured).
    `user` runs it as that user with that user's groups; only root can. `timeout` is in seconds. Raises HostFault if the
    program cannot be started or runs out of time, and with `check` also if it does not exit with 0; the message
    contains none of the `secrets`.
    """
    words = [os.fspath(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=dict(CLEAN if env is None else env),
            cwd=cwd,
            stdin=None if input is not None else subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            input=input,
            timeout=timeout,
            pass_fds=pass_fds,
            check=False,
            **_as_user(user),
        )
    except subprocess.TimeoutExpired:
        raise HostFault(f"{_shown(words, secrets)} took longer than {timeout:g} s.") from None
    except OSError as error:
        raise HostFault(f"{_shown(words[:1], secrets)} could not be started: {error.strerror}.") from error
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    result = Result(code, _text(done.stdout), _text(done.stderr))
    if check and code:
        said = _hide((result.err or result.out).strip(), secrets).splitlines()
        raise HostFault(f"{_shown(words, secrets)} failed with exit code {code}.", details=said[-20:])
    return result


def start(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    user: str | None = None,
    pass_fds: Sequence[int] = (),
) -> Program:
    """Start a program and return at once; its output is inherited unless descriptors (or subprocess.PIPE) are given.

    Raises HostFault when it cannot be started. The caller waits for it.
    """
    words = [os.fspath(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            env=dict(CLEAN if env is None else env),
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            **_as_user(user),
        )
    except OSError as error:
        raise HostFault(f"{words[0]} could not be started: {error.strerror}.") from error


@contextmanager
def ended(child: Program, by: int = signal.SIGKILL) -> Iterator[None]:
    """Makes sure that the program ends with the block: if it still runs then, it gets the signal and is waited for."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.send_signal(by)
            child.wait()


def passthrough(argv: Sequence[str | Path], *, matching: str = "", errors: list[str] | None = None) -> int:
    """Run a program whose output is the user's, until it ends or is interrupted; returns its exit code.

    What it prints on standard error is added to `errors` instead, if that is given. With `matching`, only the lines in
    which that regular expression is found are passed on; a bad expression is Rejected.
    """
    try:
        wanted = re.compile(matching.encode()) if matching else None
    except re.error as error:
        raise Rejected(f"{matching!r} is not a regular expression: {error}.") from error
    aside = None if errors is None else os.memfd_create("errors", os.MFD_CLOEXEC)
    child = start(argv, stdout=subprocess.PIPE if wanted else None, stderr=aside)
    try:
        if wanted and child.stdout:
            for line in child.stdout:
                if wanted.search(line):
                    _write_all(1, line)
        code = child.wait()
    except (KeyboardInterrupt, BrokenPipeError):
        code = 0
    finally:
        # When the terminal hangs up, only we get the signal: pass it on.
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait()
        if errors is not None and aside is not None:
            errors += os.pread(aside, 65536, 0).decode(errors="replace").splitlines()
            os.close(aside)
    return code if code >= 0 else 128 - code


def find(program: str) -> Path | None:
    """Where a program is on the clean PATH, or None."""
    import shutil

    found = shutil.which(program, path=PATH)
    return Path(found) if found else None


def _as_user(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    import grp
    import pwd

    entry = pwd.getpwnam(user)
    extra = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": extra}


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def _shown(words: Sequence[str], secrets: Sequence[str]) -> str:
    """The command for a message: its name and enough of its arguments to recognise it."""
    text = " ".join(words)
    return _hide(text if len(text) <= 120 else text[:117] + "...", secrets)


def _hide(text: str, secrets: Sequence[str]) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
