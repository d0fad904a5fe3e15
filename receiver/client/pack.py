"""`shipit pack`: makes one artifact of the files of a directory; sends nothing. The same files give the same bytes."""

from __future__ import annotations

import base64
import os
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from receiver.client.artifact import Artifact
from receiver.errors import Rejected
from receiver.sources import tarball
from receiver.sources.signed import NAMESPACE
from receiver.sources.tarball import CHUNK, Member
from receiver.system.disk import fsync_file
from receiver.system.run import find, run, start

# The signer's name, if git has none.
KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


def tar_gz(artifact: Artifact, out: IO[bytes]) -> None:
    """A tar archive, compressed."""
    with tarball.compressed(out) as packed:
        tar(artifact, cast(IO[bytes], packed))


def tar_zst(artifact: Artifact, out: IO[bytes]) -> None:
    """The same with zstd(1), in one thread: with several, the result could differ."""
    if find("zstd") is None:
        raise Rejected("There is no zstd on this machine.", hint="Install it, or: shipit pack --format tar.gz")
    with tempfile.TemporaryFile() as plain:
        tar(artifact, plain)
        plain.seek(0)
        child = start(["zstd", "-q", "-19", "--single-thread", "-c"], stdin=plain.fileno(), stdout=out.fileno())
        if child.wait():
            raise Rejected("zstd could not compress the files.")


def tar(artifact: Artifact, out: IO[bytes]) -> None:
    """All below `NAME-VERSION/`, in the order of the names."""

    def members() -> Iterator[Member]:
        for item in artifact.items:
            if item.target:
                yield Member(item.path, item.mode, target=item.target)
                continue
            with (artifact.selection.root / item.path).open("rb") as file:
                yield Member(item.path, item.mode, os.fstat(file.fileno()).st_size, file)

    tarball.write(out, artifact.stem, artifact.when, list(artifact.own()), members())


def zip_(artifact: Artifact, out: IO[bytes]) -> None:
    """The same as a zip archive."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, content in artifact.own():
            archive.writestr(zip_info(f"{artifact.stem}/{path}", 0o644, artifact.when), content)
        for item in artifact.items:
            info = zip_info(f"{artifact.stem}/{item.path}", item.mode, artifact.when)
            if item.target:
                info.external_attr = (stat.S_IFLNK | item.mode) << 16
                archive.writestr(info, os.fsencode(item.target))
                continue
            with (
                (artifact.selection.root / item.path).open("rb") as file,
                archive.open(info, "w", force_zip64=True) as to,
            ):
                while chunk := file.read(CHUNK):
                    to.write(chunk)


def zip_info(path: str, mode: int, when: int) -> zipfile.ZipInfo:
    """The header of a file in a zip archive, with nothing of this machine in it."""
    info = zipfile.ZipInfo(path, time.gmtime(when)[:6])
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix, whatever this machine is: the modes are Unix's
    info.external_attr = (stat.S_IFREG | mode) << 16
    return info


FORMATS: Mapping[str, Callable[[Artifact, IO[bytes]], None]] = {"tar.gz": tar_gz, "tar.zst": tar_zst, "zip": zip_}


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it is renamed to `path` if all goes well, and removed if not."""
    with tempfile.TemporaryDirectory(prefix=".shipit-", dir=path.parent) as place:
        made = Path(place) / path.name
        yield made
        fsync_file(made)
        made.chmod(0o644)
        made.replace(path)


def write(artifact: Artifact, form: str, folder: Path) -> Path:
    """Make the archive in a directory; returns its path."""
    path = folder / f"{artifact.stem}.{form}"
    with aside(path) as made, made.open("wb") as out:
        FORMATS[form](artifact, out)
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return tarball.digest(file)


def sign(path: Path, key: str) -> Path:
    """Sign a file with an ssh key ("": git's user.signingkey, else the usual one); returns the path of the signature."""
    chosen = key or _usual_key()
    made = path.with_name(path.name + ".sig")
    with path.open("rb") as file:
        argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", chosen, "-n", NAMESPACE]
        done = run(argv, env=os.environ, stdin=file.fileno(), check=False)
    if done.code:
        raise Rejected(f"ssh-keygen does not sign with {chosen}.", details=done.err.splitlines()[-5:],
                       hint="Say with which key: shipit pack --sign --key ~/.ssh/id_ed25519")  # fmt: skip
    made.write_text(done.out)
    return made


def signature_of(path: Path) -> str:
    """The signature beside an artifact, as one word for the server; "" if there is none."""
    beside = path.with_name(path.name + ".sig")
    return base64.b64encode(beside.read_bytes()).decode() if beside.is_file() else ""


def _usual_key() -> str:
    said = run(["git", "config", "user.signingkey"], env=os.environ, check=False).out.strip()
    places = [Path(said).expanduser()] if said else []
    places += [Path.home() / ".ssh" / name for name in KEYS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise Rejected("There is no ssh key to sign with.", hint="shipit pack --sign --key FILE")
    return str(found)
