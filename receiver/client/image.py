"""`shipit deploy --image IMAGE`: sends an image of docker or podman on this machine, only the layers the server
lacks."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from receiver.client import ssh
from receiver.client.remote import Remote
from receiver.client.words import Asked, pack
from receiver.errors import HostFault, Rejected
from receiver.sources.image_archive import GZIP, ZSTD, Archive, opened
from receiver.sources.oci import CONFIG, LAYER, MANIFEST, Layout
from receiver.system.run import run, start

ENGINES = ("docker", "podman")
LEVEL = 5  # of gzip: a layer is compressed once, and every zlib can read it
CHUNK = 2**20
LARGE = 4 * 2**20  # bytes; a layer of this size or more is sent on its own
USAGE = 2  # exit code of a server that has no images:add, or refuses it


def engine_of(image: str) -> str:
    """Which of docker and podman has the image; "" for neither."""
    for engine in ENGINES:
        if (
            shutil.which(engine)
            and not run([engine, "image", "inspect", "--", image], env=os.environ, check=False, timeout=60).code
        ):
            return engine
    return ""


def deploy(server: Remote, engine: str, image: str, more: Collection[str]) -> int:
    """Send the image and follow its release; returns the exit code, which is the verdict's. `more`: the server's options."""
    if not server.app:
        raise Rejected("Which app?", hint=f"shipit --app NAME deploy --image {image}")
    there = frozenset() if "--fresh" in more else layers_at(server)
    with tempfile.TemporaryDirectory(prefix="shipit-") as temporary:
        saved, packed = Path(temporary, "saved.tar"), Path(temporary, "image.tar")
        form = ["--format=docker-archive"] if engine == "podman" else []
        run([engine, "save", *form, "--output", str(saved), "--", image], env=os.environ, timeout=1800)
        with saved.open("rb") as file, packed.open("wb") as out:
            sent, whole = without(opened(file), there, out, Path(temporary), lambda *layer: ahead(server, *layer))
        saved.unlink()
        size = packed.stat().st_size / 2**20
        sys.stderr.write(f"-----> Sending {image}, {size:.1f} MiB: {sent} of {whole} layers, which the server lacks\n")
        sys.stderr.flush()
        with packed.open("rb") as file:
            asked = pack(Asked(("deploy", server.app, "-", *more), server.app))
            code = start([*ssh.argv(), "-T", *server.ssh, asked], env=os.environ, stdin=file.fileno()).wait()
    return code if code >= 0 else 128 - code


def layers_at(server: Remote) -> frozenset[str]:
    """The digests of the app's unpacked layers on the server; none if it cannot tell."""
    asked = pack(Asked(("images:layers", server.app), server.app))
    said = run([*ssh.argv(), "-T", *server.ssh, asked], env=os.environ, check=False, timeout=60)
    return frozenset(said.out.split()) if not said.code else frozenset()


def ahead(server: Remote, digest: str, size: int, file: IO[bytes]) -> bool:
    """Send a large layer on its own, before the image: if a later one is cut off, this one need not be sent again.
    False if it has to go with the image, because it is small or the server takes no layers."""
    if size < LARGE:
        return False
    sys.stderr.write(f"-----> Sending the layer {digest[:19]}, {size / 2**20:.1f} MiB\n")
    sys.stderr.flush()
    asked = pack(Asked(("images:add", server.app, digest), server.app))
    argv = [*ssh.argv(), "-T", *server.ssh, asked]
    done = start(argv, env=os.environ, stdin=file.fileno()).wait()
    if done and done != USAGE:
        raise HostFault(
            "A layer did not arrive.", holds="Nothing was changed; the layers before it need not be sent again.",
            hint="Type the same again.",
        )  # fmt: skip
    return done == 0


def without(
    archive: Archive,
    there: Collection[str],
    out: IO[bytes],
    scratch: Path,
    send: Callable[[str, int, IO[bytes]], bool] = lambda *layer: False,
) -> tuple[int, int]:
    """Write the image as an OCI archive without the layers in `there`, and without those that `send` takes (digest,
    size, content). Returns how many layers the server lacked, and how many there are."""
    config_file, _, layers, name = archive.described()
    config = archive.small(config_file)
    try:
        diffs = [str(diff) for diff in json.loads(config)["rootfs"]["diff_ids"]]
    except (ValueError, KeyError, TypeError) as error:
        raise HostFault("What was saved is no image.") from error
    layout = Layout(out)
    described, lacked = [], 0
    for (layer, _), diff in zip(layers, diffs, strict=True):
        if diff in there:
            described.append({"mediaType": LAYER, "digest": diff, "size": 0})
            continue
        with tempfile.TemporaryFile(dir=scratch) as file:
            kind = as_it_is(archive.content(layer), file)
            digest, size = digest_of(file)
            if digest not in there:
                lacked += 1
                if not send(digest, size, file):
                    file.seek(0)
                    layout.blob(digest, size, parts_of(file))
        described.append({"mediaType": f"{LAYER}+{kind}", "digest": digest, "size": size})
    told = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": described,
            "config": {"mediaType": CONFIG, "digest": layout.add(config), "size": len(config)}}  # fmt: skip
    layout.finish(json.dumps(told).encode(), name)
    return lacked, len(diffs)


def as_it_is(parts: Iterator[bytes], file: IO[bytes]) -> str:
    """Write a layer, compressed with gzip unless it is compressed already; returns the compression."""
    first = next(parts, b"")
    kind = next((kind for kind, magic in (("gzip", GZIP), ("zstd", ZSTD)) if first.startswith(magic)), "")
    with nullcontext(file) if kind else gzip.GzipFile(fileobj=file, mode="wb", compresslevel=LEVEL, mtime=0) as packing:
        packing.write(first)
        for part in parts:
            packing.write(part)
    return kind or "gzip"


def digest_of(file: IO[bytes]) -> tuple[str, int]:
    """Digest and size of a whole file, which is at its beginning afterwards."""
    found, size = hashlib.sha256(), 0
    file.seek(0)
    for chunk in parts_of(file):
        found.update(chunk)
        size += len(chunk)
    file.seek(0)
    return f"sha256:{found.hexdigest()}", size


def parts_of(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
