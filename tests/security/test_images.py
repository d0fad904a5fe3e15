"""Images that nobody would build: each is refused with one sentence before anything of it is kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import Rejected
from receiver.sources.image_archive import MAX_LAYERS, Examined, examined
from receiver.sources.image_members import MAX_MEMBERS
from receiver.sources.limits import Limits
from receiver.sources.oci import PROCESSORS

HERE = PROCESSORS.get(platform.machine(), platform.machine())
ROOM = 2**21
Files = dict[str, bytes]


def sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def layer(name: str = "file", content: bytes = b"x" * 1000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def image(*layers: bytes, config: Mapping[str, Any] | None = None) -> Files:
    """The files of an archive as docker writes it."""
    diffs = [f"sha256:{sha(one)}" for one in layers]
    told = {"architecture": HERE, "os": "linux", "config": {}, "rootfs": {"diff_ids": diffs}, **(config or {})}
    raw = json.dumps(told).encode()
    files = {f"{sha(raw)}.json": raw, **{f"{sha(one)}.tar": one for one in layers}}
    listed = {"Config": f"{sha(raw)}.json", "RepoTags": ["shop:7"], "Layers": [f"{sha(one)}.tar" for one in layers]}
    return {"manifest.json": json.dumps([listed]).encode(), **files}


def oci(*layers: bytes, **manifest: Any) -> Files:
    """The same as an OCI archive."""
    config = json.dumps(
        {"architecture": HERE, "os": "linux", "rootfs": {"diff_ids": [f"sha256:{sha(one)}" for one in layers]}}
    ).encode()
    told = {
        "config": {"digest": f"sha256:{sha(config)}"}, "layers": [{"digest": f"sha256:{sha(one)}"} for one in layers], **manifest
    }  # fmt: skip
    raw = json.dumps(told).encode()
    index = json.dumps({"manifests": [{"digest": f"sha256:{sha(raw)}"}]}).encode()
    blobs = {f"blobs/sha256/{sha(one)}": one for one in (*layers, config, raw)}
    return {"index.json": index, "oci-layout": b"{}", **blobs}


def packed(files: Files, *more: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def changed(files: Files, name: str, change: Callable[[bytes], bytes]) -> Files:
    return {key: change(value) if key.startswith(name) or key.endswith(name) else value for key, value in files.items()}


def config_of(**said: Any) -> bytes:
    return packed(image(layer(), config=said))


ONE = image(layer())


def zstd(raw: bytes) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("no zstd here")
    return subprocess.run(["zstd", "-qc"], input=raw, stdout=-1, check=True).stdout


BOMB = gzip.compress(b"\0" * 2**24)
CONFIG = next(name for name in ONE if name.endswith(".json") and name != "manifest.json")
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a link out": (packed(ONE, entry("out", tarfile.SYMTYPE, "/etc/shadow")), "an entry '/etc/shadow'"),
    "a link up": (packed(ONE, entry("a/out", tarfile.SYMTYPE, "../../x")), "leads out"),
    "a hard link out": (packed(ONE, entry("out", tarfile.LNKTYPE, "../x")), "leads out"),
    "a device": (packed(ONE, entry("null", tarfile.CHRTYPE)), "neither a file nor a directory"),
    "a disk": (packed(ONE, entry("sda", tarfile.BLKTYPE)), "neither a file nor a directory"),
    "a pipe": (packed(ONE, entry("pipe", tarfile.FIFOTYPE)), "neither a file nor a directory"),
    "up": (packed({**ONE, "../up": b""}), "leads out"),
    "from the root": (packed({**ONE, "/etc/passwd": b""}), "an entry '/etc/passwd'"),
    "a newline": (packed({**ONE, "a\nb": b""}), "an entry"),
    "twice": (packed(ONE, entry("manifest.json")), "in it twice"),
    "twice by another name": (packed({**ONE, "./manifest.json": b"[]"}), "in it twice"),
    "entries": (packed({**ONE, **{f"f{n}": b"" for n in range(MAX_MEMBERS)}}), f"more than {MAX_MEMBERS} entries"),
    "a long name": (packed({**ONE, "n" * 20_000: b""}), "a name is too long"),
    "a layer that is a link in a circle": (
        packed(
            {key: value for key, value in ONE.items() if not key.endswith(".tar")},
            *(entry(key, tarfile.SYMTYPE, key) for key in ONE if key.endswith(".tar")),
        ),
        "is not in it",
    ),
    "another layer": (packed(changed(ONE, ".tar", lambda raw: raw[:-1] + b"y")), "a layer is not the one"),
    "another description": (packed(changed(ONE, CONFIG, lambda raw: raw + b" ")), "description is not the one"),
    "another layer of OCI": (packed(changed(oci(layer()), f"blobs/sha256/{sha(layer())}", lambda raw: raw + b"y")), "a layer is not"),
    "a layer too many": (packed(image(layer(), config={"rootfs": {"diff_ids": []}})), "another number of layers"),
    "too many layers": (packed(image(*(layer(f"f{n}", b"") for n in range(MAX_LAYERS + 1)))), f"more than {MAX_LAYERS} layers"),
    "a thousand layers": (packed(image(*[layer()] * 1000)), f"more than {MAX_LAYERS} layers"),
    "a bomb": (packed(changed(ONE, ".tar", lambda raw: BOMB)), "larger than the room"),
    "a bomb behind the layer": (packed(changed(ONE, ".tar", lambda raw: gzip.compress(raw) + BOMB)), "larger than the room"),
    "a layer that is cut": (packed(changed(ONE, ".tar", lambda raw: gzip.compress(raw)[:-9])), "a layer is damaged"),
    "a damaged layer": (packed(changed(ONE, ".tar", lambda raw: BOMB[:100] + b"?" * 50)), "a layer is damaged"),
    "two images": (packed(changed(ONE, "manifest.json", lambda raw: json.dumps(json.loads(raw) * 2).encode())), "holds 2 images"),
    "no image": (packed({**ONE, "manifest.json": b"[]"}), "holds 0 images"),
    "no JSON": (packed({**ONE, "manifest.json": b"[" * 10**5}), "no JSON"),
    "a large description": (packed({**ONE, "manifest.json": b" " * 2**23}), "larger than 4 MiB"),
    "a layer elsewhere": (
        packed(changed(ONE, "manifest.json", lambda raw: raw.replace(b'"Layers": ["', b'"Layers": ["../../'))), "leads out"
    ),
    "layers that are none": (packed(changed(ONE, "manifest.json", lambda raw: raw.replace(b'"Layers": [', b'"Layers": [7, '))), "another number of layers"),
    "another processor": (config_of(architecture="s390x"), "for linux/s390x"),
    "another system": (config_of(os="windows"), "for windows/"),
    "lines in a label": (config_of(config={"Labels": {"shipit.release": "a\nb: c"}}), "more than one line"),
    "lines in a type": (config_of(config={"Labels": {"shipit.process.a\nb": "c"}}), "more than one line"),
    "rootfs that is none": (config_of(rootfs=[1]), "another number of layers"),
    "a digest that is none": (packed(oci(layer(), config={"digest": "sha256:../../x"})), "none of SHA-256"),
    "another kind of digest": (packed(oci(layer(), layers=[{"digest": "md5:" + "a" * 32}])), "none of SHA-256"),
    "an index in an index": (packed(oci(layer(), layers=None, config=None)), "no image of one platform"),
    "a layer that nobody has": (packed(oci(layer(), layers=[{"digest": "sha256:" + "a" * 64}])), "is not in it"),
    "a layer that the server has not": (
        packed({key: value for key, value in oci(layer()).items() if not key.endswith(sha(layer()))}), "leaves out 1 of 1"
    ),
}  # fmt: skip


def looked_at(tmp_path: Path, content: bytes) -> Examined:
    (tmp_path / "sent").write_bytes(content)
    with (tmp_path / "sent").open("rb") as file:
        return examined(file, Limits(len(content), ROOM, 9))


def test_what_docker_and_podman_write_is_taken(tmp_path: Path) -> None:
    twice = gzip.compress(layer()[:700]) + gzip.compress(layer()[700:])
    for files in (
        ONE,
        oci(layer()),
        image(*(layer(f"f{n}", b"") for n in range(MAX_LAYERS))),
        *(changed(ONE, ".tar", lambda raw, sent=sent: sent) for sent in (gzip.compress(layer()), twice)),
    ):
        assert looked_at(tmp_path, packed(files)).id.startswith("sha256:")


def test_a_layer_of_zstd_is_held_against_its_digest_and_the_room_as_well(tmp_path: Path) -> None:
    good, bomb = zstd(layer()), zstd(b"\0" * 2**24)
    assert looked_at(tmp_path, packed(changed(ONE, ".tar", lambda raw: good))).layers
    for sent, told in ((bomb, "larger than the room"), (good[:40], "is damaged"), (zstd(b"x"), "is not the one")):
        with pytest.raises(Rejected, match=told):
            looked_at(tmp_path, packed(changed(ONE, ".tar", lambda raw, sent=sent: sent)))


@pytest.mark.parametrize("name", HOSTILE)
def test_an_image_that_nobody_would_build_is_refused_with_one_sentence(tmp_path: Path, name: str) -> None:
    content, told = HOSTILE[name]
    with pytest.raises(Rejected) as caught:
        looked_at(tmp_path, content)
    assert told in caught.value.message and caught.value.holds == "Nothing was received."
    assert len(caught.value.message) < 300 and caught.value.message.isprintable()


def test_a_healthcheck_is_taken_as_docker_writes_it_and_nothing_else_for_one(tmp_path: Path) -> None:
    plain = {"words": ["true"], "timeout": 30.0, "most": 90.0}
    times = {"Interval": 2 * 10**9, "Timeout": 10**9, "Retries": 2, "StartPeriod": 5 * 10**9}
    for told, taken in (
        ({"Test": ["CMD", "true"]}, plain),
        ({"Test": ["CMD-SHELL", "a | b"], **times}, {"words": ["/bin/sh", "-c", "a | b"], "timeout": 1.0, "most": 9.0}),
        ({"Test": ["CMD", "true"], "Retries": -1, "Interval": "x", "Timeout": 10**30}, {**plain, "timeout": 3600.0}),
        *(({"Test": test}, None) for test in (["NONE"], [], ["CMD"], ["CMD", 1], ["CMD", "a\0b"], ["SH", "x"], "x")),
        ("x", None),
        (None, None),
    ):
        assert looked_at(tmp_path, config_of(config={"Healthcheck": told})).check == taken, told


def test_an_image_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    noise = random.Random(7).randbytes(600_000)
    for files in (image(layer("a", noise), layer("b", noise[:1000])), oci(layer("a", noise), layer("b", noise[:1000]))):
        whole = packed(files)
        end = len(whole.rstrip(b"\0"))
        for cut in (*range(2**16, end, 2**16), 1, 511, 512, 513, end - 1, end):
            with pytest.raises(Rejected):
                looked_at(tmp_path, whole[:cut])


def test_any_damage_is_refused_or_does_not_matter_and_never_a_traceback(tmp_path: Path) -> None:
    dice = random.Random(11)
    for files in (ONE, oci(layer())):
        whole = packed(files)
        good = looked_at(tmp_path, whole)
        for _ in range(400):
            damaged = bytearray(whole)
            for _ in range(dice.choice((1, 1, 3))):
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
            try:
                found = looked_at(tmp_path, bytes(damaged))
            except Rejected:
                continue
            # What nothing is held against: a name that is shown, when a file was written.
            assert found._replace(name="") == good._replace(name="")
