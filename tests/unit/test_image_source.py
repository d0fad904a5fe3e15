"""What is taken for a container image, and what is not."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import pytest
from security.test_images import image, layer
from security.test_images import packed as archived

from receiver.client.image import without
from receiver.errors import Rejected
from receiver.inside.container import healthcheck
from receiver.names import AppName
from receiver.paths import Layout
from receiver.sources.image import ImageSource
from receiver.sources.image_archive import examined, opened
from receiver.sources.image_parts import Parts
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


def test_a_healthcheck_says_any_number_and_is_asked_for_an_hour_at_most() -> None:
    for told in (10**400, float("inf"), float("nan"), -1, "x", None):
        said = {"Test": ["CMD", "true"], "Interval": told, "Timeout": told, "StartPeriod": told, "Retries": told}
        read = healthcheck(said)
        assert read and 0 < read["timeout"] <= 3600 and 0 < read["most"] <= 3600


def test_layers_that_come_at_once_have_one_limit_together(tmp_path: Path) -> None:
    app = Layout(tmp_path).app(AppName("blog"))
    (app.repo / "image-parts").mkdir(parents=True)
    (app.repo / "image-parts/.coming").write_bytes(bytes(900))
    (tmp_path / "layer").write_bytes(bytes(200))
    digest = f"sha256:{hashlib.sha256(bytes(200)).hexdigest()}"
    with (tmp_path / "layer").open("rb") as file:
        with pytest.raises(Rejected, match="larger"):
            Parts(app).add(digest, file.fileno(), 1000)
        file.seek(0)
        assert Parts(app).add(digest, file.fileno(), 1100) == 200


def test_a_layer_that_arrived_whole_is_not_sent_again_when_a_later_one_was_cut_off(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    app = layout.app(AppName("blog"))
    app.repo.mkdir(parents=True)
    parts = Parts(app)
    noise = random.Random(7)
    (tmp_path / "saved.tar").write_bytes(archived(image(*(layer(name, noise.randbytes(300_000)) for name in "abc"))))

    def send(cut: int) -> tuple[list[str], tuple[int, int] | None, bytes]:
        """What a laptop sends ahead, of which the layer number `cut` is cut off, and then the image without those."""
        sent: list[str] = []

        def ahead(digest: str, size: int, file: object) -> bool:
            sent.append(digest)
            read, write = os.pipe()
            content = file.read()  # type: ignore[attr-defined]
            if os.fork() == 0:
                with os.fdopen(write, "wb") as pipe:
                    pipe.write(content[: size // 2] if len(sent) == cut else content)
                os._exit(0)
            os.close(write)
            try:
                parts.add(digest, read, 2**20)
            finally:
                os.close(read)
                os.wait()
            return True

        out = io.BytesIO()
        with (tmp_path / "saved.tar").open("rb") as file:
            try:
                told = without(opened(file), parts.there(), out, tmp_path, ahead)
            except Rejected as refused:
                assert "cut off" in refused.message and refused.holds == "Nothing was received."
                return sent, None, b""
        return sent, told, out.getvalue()

    first, _, _ = send(cut=2)
    assert len(first) == 2 and set(parts.there()) == {first[0]}, "the one that arrived whole, and nothing else"
    again, told, rest = send(cut=0)
    assert again[0] == first[1] and len(again) == 2 and told == (2, 3)
    assert len(rest) < 20_000, "the image came without its layers"
    limits = Limits(2**21, 2**21, 9)
    with (tmp_path / "sent").open("w+b") as file:
        file.write(rest)
        file.flush()
        with pytest.raises(Rejected, match="not in it"):
            examined(file, limits)
        assert len(parts.complete(file)) == 3
        assert examined(file, limits).name == "shop:7"
        assert parts.complete(file) == []
    parts.forget()
    assert parts.there() == {} and not list((app.repo / "image-parts").iterdir())
    with pytest.raises(Rejected, match="larger than"):
        send_all = os.open(tmp_path / "saved.tar", os.O_RDONLY)
        parts.add("sha256:" + "0" * 64, send_all, 2**16)
