"""Images that no server should take, made of one that is good: changed, cut, or with a layer that leads out."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable

from security.test_images import entry

Change = Callable[[dict[str, bytes]], None]


def edited(image: bytes, change: Change) -> bytes:
    """The same archive with other contents; a name that begins with `->` in its content is a link."""
    with tarfile.open(fileobj=io.BytesIO(image)) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    change(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def layer_of(files: dict[str, bytes]) -> str:
    return str(json.loads(files["manifest.json"])[0]["Layers"][-1])


def config_of(files: dict[str, bytes]) -> str:
    return str(json.loads(files["manifest.json"])[0]["Config"])


def other_layer(files: dict[str, bytes]) -> None:
    files[layer_of(files)] = files[layer_of(files)][:-1] + b"x"


def other_config(files: dict[str, bytes]) -> None:
    files[config_of(files)] += b" "


def leads_out(files: dict[str, bytes]) -> None:
    files["../../outside"] = b"x"


def two_images(files: dict[str, bytes]) -> None:
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) * 2).encode()


def names_outside(files: dict[str, bytes]) -> None:
    told = json.loads(files["manifest.json"])
    told[0]["Layers"][-1] = "../../../etc/passwd"
    files["manifest.json"] = json.dumps(told).encode()


def rewritten(files: dict[str, bytes], **changes: object) -> None:
    """Another description, under the name that its digest gives."""
    told = json.loads(files["manifest.json"])
    config = json.loads(files.pop(told[0]["Config"]))
    raw = json.dumps({**config, **changes}).encode()
    told[0]["Config"] = hashlib.sha256(raw).hexdigest() + ".json"
    files[told[0]["Config"]] = raw
    files["manifest.json"] = json.dumps(told).encode()


def other_processor(files: dict[str, bytes]) -> None:
    rewritten(files, architecture="s390x")


def bomb(files: dict[str, bytes]) -> None:
    """A small layer that is large when it is unpacked."""
    files[layer_of(files)] = gzip.compress(b"\0" * 2**24)


BAD: dict[str, tuple[Change, str]] = {
    "other-layer": (other_layer, "a layer is not the one that its digest names"),
    "other-config": (other_config, "description is not the one that its digest names"),
    "leads-out": (leads_out, "leads out"),
    "two-images": (two_images, "holds 2 images"),
    "names-outside": (names_outside, "leads out"),
    "other-processor": (other_processor, "The image is for linux/s390x"),
    "other-size": (bomb, "a layer is not the one that its digest names"),
}


def hostile(*entries: tarfile.TarInfo) -> bytes:
    """A layer of these; a file holds its own name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info in entries:
            content = info.name.encode() if info.isreg() else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def under(image: bytes, top: bytes) -> bytes:
    """The image with one more layer on top of its own."""

    def change(files: dict[str, bytes]) -> None:
        told = json.loads(files["manifest.json"])
        config = json.loads(files[told[0]["Config"]])
        digest = hashlib.sha256(top).hexdigest()
        files[f"{digest}.tar"] = top
        told[0]["Layers"].append(f"{digest}.tar")
        files["manifest.json"] = json.dumps(told).encode()
        history = [*config.get("history", []), {"created_by": "nobody"}]
        diffs = [*config["rootfs"]["diff_ids"], f"sha256:{digest}"]
        rewritten(files, rootfs={"type": "layers", "diff_ids": diffs}, history=history)

    return edited(image, change)


CLIMBS = {
    "by its name": [entry("../../../../../../../../../../mnt/evil")],
    "from the root": [entry("/mnt/evil")],
    "by a link": [entry("out", tarfile.SYMTYPE, "/mnt"), entry("out/evil")],
    "by a link up": [entry("a/out", tarfile.SYMTYPE, "../../../../../../../../mnt"), entry("a/out/evil")],
    "by a hard link": [entry("evil", tarfile.LNKTYPE, "../../../../../../../../etc/hostname"), entry("evil")],
    "by a hard link from the root": [entry("evil", tarfile.LNKTYPE, "/etc/hostname"), entry("evil")],
    "to remove": [entry("../../../../../../../../etc/.wh.hostname"), entry("etc", tarfile.SYMTYPE, "/etc"), entry("etc/.wh.hostname")],
}  # fmt: skip
