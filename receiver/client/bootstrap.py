"""Makes a bare server a receiver from a laptop, over ssh as root (or as a sudo user). The server clones nothing.

The laptop sends its own source, so client and server have the same version.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from receiver.client import ssh
from receiver.errors import HostFault, Rejected
from receiver.system.run import PIPE, start

# The files of an installation, in a clone. In a wheel, SHARED are below share/shipit and the others below
# share/shipit/source (pyproject.toml).
SHARED = ("hooks", "libexec", "templates")
PARTS = (
    "install.sh", "pyproject.toml", "README.md", "LICENSE", "requirements.lock", "requirements-build.lock",
    "receiver", *SHARED, "examples/hello",
)  # fmt: skip
# Runs on the server: unpacks into a directory that only root can enter, installs, and removes that directory.
SCRIPT = """\
set -eu
as_root=
if [ "$(id -u)" != 0 ]; then as_root='sudo --'; fi
command -v tar >/dev/null || { echo ' !     The server has no tar.' >&2; exit 71; }
place=$($as_root mktemp -d /var/tmp/shipit-install.XXXXXXXX)
trap '$as_root rm -rf "$place"' EXIT
$as_root tar -x -z -f - -C "$place" --no-same-owner
$as_root "$place/install.sh" "$@" </dev/null
"""
_DESTINATION = re.compile(
    r"(?:ssh://)?((?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9\[][A-Za-z0-9.:\]-]*?)(?::([0-9]{1,5}))?/?"
)


def destination(text: str) -> tuple[str, int]:
    """`root@example.org`, `root@example.org:2222` as ssh's destination and port (0: ssh's own); raises Rejected."""
    match = _DESTINATION.fullmatch(text)
    if not match:
        raise Rejected(f"{text[:60]!a} is not a server.", hint="shipit server:add root@203.0.113.7")
    return match[1].strip("[]"), int(match[2] or 0)


def parts() -> Iterator[tuple[str, Path]]:
    """Every file of the source by its name there; raises HostFault if this installation lacks the source."""
    here = Path(__file__).resolve()
    top, share = here.parents[2], Path(sys.prefix) / "share/shipit"
    is_clone = (top / "install.sh").is_file()
    for part in PARTS:
        of_wheel = share / part if part in SHARED else share / "source" / part
        place = top / part if is_clone or part == "receiver" else of_wheel
        if not place.exists():
            raise HostFault(
                f"This installation of shipit holds no {part}.",
                hint="Install the wheel that tools/release build makes: uv tool install --force WHEEL",
            )
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                yield (part if path == place else f"{part}/{path.relative_to(place).as_posix()}"), path


def archive() -> bytes:
    """The source as tar.gz, the same bytes for the same source."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as tar:
        for name, path in parts():
            entry = tar.gettarinfo(path, name)
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o755 if name.startswith(("install.sh", "hooks/", "libexec/")) else 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)
    return packed.getvalue()


def install(host: str, port: int, words: Sequence[str]) -> None:
    """Install on the server, or upgrade it to this version; shows install.sh's output. Raises HostFault."""
    where = [*(("-p", str(port)) if port else ()), "--", host]
    # The script goes to sh -c, because standard input is the archive.
    command = shlex.join(["sh", "-c", SCRIPT, "shipit", *words])
    child = start([*ssh.argv(), "-T", *where, command], stdin=PIPE, env=os.environ)
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # ssh prints the reason
        child.stdin.write(archive())
        child.stdin.close()
    code = child.wait()
    if code == 255:
        raise HostFault(
            f"{host} was not reached over ssh.", holds="Nothing was changed there.", hint=f"Try: ssh {host}"
        )
    if code:
        raise HostFault(f"The installation on {host} ended with exit code {code}.", hint="Run it again: it goes on")
