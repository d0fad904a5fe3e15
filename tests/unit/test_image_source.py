"""What is taken for a container image, and what is not."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from receiver.errors import Rejected
from receiver.names import AppName
from receiver.paths import Layout
from receiver.sources.image import ImageSource
from receiver.sources.limits import Limits

SOURCE = ImageSource(Layout(Path("/nowhere")).app(AppName("blog")))
HEX = "c7f1b7023f48a5b3ee86b3756abd2511cb638cb035be778cbffe1cb80019a083"
PODMAN = (f"{HEX}.tar", f"{HEX}.json", "manifest.json")
DOCKER = ("blobs/sha256/" + HEX, "index.json", "manifest.json", "oci-layout")
SITE = ("manifest.json", "index.html", "blobs.js")


def packed(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def taken(tmp_path: Path, content: bytes) -> bool:
    (tmp_path / "sent").write_bytes(content)
    with (tmp_path / "sent").open("rb") as file:
        return SOURCE.takes(file)


@pytest.mark.parametrize("names", [PODMAN, DOCKER, ("oci-layout", "index.json")])
def test_an_image_is_known_by_what_is_in_it(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert taken(tmp_path, packed(*names))
    # Cut off, too, so that it is the image that is said to be.
    assert taken(tmp_path, packed(*names)[:600])


@pytest.mark.parametrize(
    "content",
    [packed(*SITE), gzip.compress(packed(*SITE)), b"", b"PK", b"x" * 1000],
    ids=["tar", "gzip", "empty", "zip", "text"],
)
def test_an_archive_of_files_is_none(tmp_path: Path, content: bytes) -> None:
    assert not taken(tmp_path, content)


def test_an_image_that_went_through_gzip_is_told_to_come_as_it_is(tmp_path: Path) -> None:
    content = gzip.compress(packed(*PODMAN))
    assert taken(tmp_path, content)
    (tmp_path / "sent").write_bytes(content)
    with (tmp_path / "sent").open("rb") as file, pytest.raises(Rejected, match="went through gzip"):
        SOURCE.receive(file, Limits(9, 9, 9), by="ann", parent=None, said="", check=lambda commits, oid: None)
