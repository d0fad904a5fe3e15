"""Reads the archives of `docker save`, `podman save` and OCI: by their headers; every part is checked against its
digest."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, NamedTuple

from receiver.errors import Rejected, as_root, printable
from receiver.sources.image_config import check, exposed, fits_here, labelled, workdir
from receiver.sources.image_members import AGAIN, Member, Members, bad, clean
from receiver.sources.limits import Limits
from receiver.system.run import PIPE, find, start

DOCKER, OCI = "manifest.json", "index.json"
CHUNK, MAX_JSON = 2**20, 2**22
MAX_LAYERS = 127  # docker's own limit
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Examined(NamedTuple):
    """An image as its archive describes it. `port`: where it listens, 0 = not known. `layers`: the digests of its
    unpacked layers. `workdir`: the working directory of its processes. `check`: its HEALTHCHECK. `size`: bytes of all
    layers, unpacked if that is known."""

    id: str
    name: str
    port: int
    layers: tuple[str, ...]
    workdir: str
    check: Mapping[str, Any] | None
    size: int
    files: Mapping[str, str]


def opened(file: IO[bytes]) -> Archive:
    """The archive with all headers read; raises Rejected for what no `save` writes."""
    members: dict[str, Member] = {}
    for member in Members(file):
        if member.kind not in (b"0", b"\0", b"5", b"2", b"1"):
            raise bad(f"{member.name[:60]!a} is neither a file nor a directory")
        if member.kind in (b"1", b"2"):
            base = "" if member.kind == b"1" else posixpath.dirname(member.name)
            member = member._replace(link=clean(posixpath.join(base, member.link)))
        if member.name in members and member.kind != b"5":
            raise bad(f"{member.name[:60]!a} is in it twice")
        members[member.name] = member
    return Archive(file, members)


def examined(file: IO[bytes], limits: Limits) -> Examined:
    """Check the whole archive; raises Rejected with what is wrong."""
    archive = opened(file)
    config_file, wanted, layers, name = archive.described()
    raw = archive.small(config_file)
    digest = hashlib.sha256(raw).hexdigest()
    if wanted and wanted != digest:
        raise bad("its description is not the one that its digest names")
    config = _json(raw)
    fits_here(config)
    diffs = config.get("rootfs", {}).get("diff_ids", []) if isinstance(config.get("rootfs"), dict) else []
    if not isinstance(diffs, list) or len(diffs) != len(layers):
        raise bad("its description has another number of layers than the archive")
    if len(layers) > MAX_LAYERS:
        raise bad(f"it has more than {MAX_LAYERS} layers")
    size, left_out = 0, set()
    for (layer, blob), diff in zip(layers, diffs, strict=True):
        if blob and diff == f"sha256:{blob}" and not archive.has(layer):
            left_out.add(diff)
        else:
            size += archive.layer(layer, blob, str(diff), limits.size - size)
    if left_out and (missing := left_out - set(limits.layers())):
        raise Rejected(
            f"The archive leaves out {len(missing)} of {len(layers)} layers, which the server has not.",
            holds="Nothing was received.", hint=AGAIN,
        )  # fmt: skip
    return Examined(
        f"sha256:{digest}",
        name,
        exposed(config),
        tuple(map(str, diffs)),
        workdir(config),
        check(config),
        size,
        labelled(config),
    )


class Archive:
    """The members of an archive, read by name."""

    def __init__(self, file: IO[bytes], members: Mapping[str, Member]) -> None:
        self._fd, self._members = file.fileno(), members

    def described(self) -> tuple[str, str, list[tuple[str, str]], str]:
        """The name of its description, its digest ("" = not known), the layers with theirs, the image's name."""
        return self.docker() if self.has(DOCKER) else self.oci()

    def docker(self) -> tuple[str, str, list[tuple[str, str]], str]:
        """From manifest.json: the name of the description, its digest ("" = not known), the layers with theirs, a
        name."""
        told = _json(self.small(DOCKER), list)
        if len(told) != 1 or not isinstance(told[0], dict):
            raise Rejected(
                f"The archive holds {len(told)} images.", holds="Nothing was received.",
                hint="Send the one that the app is: docker save IMAGE | ssh HOST deploy APP -",
            )  # fmt: skip
        image = told[0]
        config, layers, tags = image.get("Config"), image.get("Layers"), image.get("RepoTags") or [""]
        if not isinstance(config, str) or not isinstance(layers, list) or not isinstance(tags, list):
            raise bad("manifest.json is not what docker or podman writes")
        return config, hex_of(config), [(str(layer), "") for layer in layers], _shown(tags[0] if tags else "")

    def oci(self) -> tuple[str, str, list[tuple[str, str]], str]:
        """The same from index.json, whose digests name the blobs."""
        index = _json(self.small(OCI))
        found = index.get("manifests")
        if not isinstance(found, list) or len(found) != 1:
            raise Rejected(
                f"The archive holds {len(found) if isinstance(found, list) else 0} images.",
                holds="Nothing was received.", hint="Send one image, of one platform.",
            )  # fmt: skip
        name = (found[0].get("annotations") or {}).get("org.opencontainers.image.ref.name", "")
        manifest = _json(self.blob(found[0]))
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not isinstance(manifest.get("config"), dict):
            raise bad("it describes no image of one platform")
        config = _digest(manifest["config"])
        return (
            f"blobs/sha256/{config}",
            config,
            [(f"blobs/sha256/{_digest(one)}", _digest(one)) for one in layers],
            _shown(name),
        )

    def has(self, name: str) -> bool:
        return clean(name) in self._members

    def small(self, name: str) -> bytes:
        member = self.member(name)
        if member.size > MAX_JSON:
            raise bad(f"{name[:60]!a} is larger than {MAX_JSON // 2**20} MiB")
        return os.pread(self._fd, member.size, member.start)

    def content(self, name: str) -> Iterator[bytes]:
        """The bytes of a member, in parts."""
        member = self.member(name)
        at, end = member.start, member.start + member.size
        while at < end and (chunk := os.pread(self._fd, min(CHUNK, end - at), at)):
            at += len(chunk)
            yield chunk

    def blob(self, descriptor: Any) -> bytes:
        digest = _digest(descriptor)
        raw = self.small(f"blobs/sha256/{digest}")
        if hashlib.sha256(raw).hexdigest() != digest:
            raise bad("a part of its description is not the one that its digest names")
        return raw

    def member(self, name: str) -> Member:
        member = self._members.get(clean(name))
        if member is not None and member.kind in (b"1", b"2"):
            member = self._members.get(member.link)
        if member is None or member.kind not in (b"0", b"\0"):
            raise bad(f"{name[:80]!a}, which it names, is not in it")
        return member

    def layer(self, name: str, blob: str, diff: str, room: int) -> int:
        """Check a layer against its digests; returns its unpacked size. Raises Rejected if they differ, or beyond
        `room`."""
        member = self.member(name)
        head = os.pread(self._fd, 4, member.start)
        packed, unpacked = hashlib.sha256(), hashlib.sha256()
        size = 0

        def chunks() -> Iterator[bytes]:
            for chunk in self.content(name):
                packed.update(chunk)
                yield chunk

        opener = _inflated if head[:2] == GZIP else _unpacked if head == ZSTD else iter
        try:
            for part in opener(chunks()):
                unpacked.update(part)
                size += len(part)
                if size > room:
                    raise Rejected(
                        "The image, unpacked, is larger than the room that the server's disk has for it.",
                        holds="Nothing was received.", hint="See: shipit doctor",
                    )  # fmt: skip
        except zlib.error as error:
            raise bad("a layer is damaged") from error
        if (blob and packed.hexdigest() != blob) or diff != f"sha256:{unpacked.hexdigest()}":
            raise bad("a layer is not the one that its digest names")
        return size


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress gzip, all members one after the other, as podman does."""
    inflate = zlib.decompressobj(31)
    for chunk in chunks:
        rest = chunk
        while rest:
            if inflate.eof:
                inflate = zlib.decompressobj(31)
            yield inflate.decompress(rest, CHUNK)
            rest = inflate.unconsumed_tail or inflate.unused_data
    while not inflate.eof:
        if not (part := inflate.decompress(b"", CHUNK)):
            raise zlib.error("cut off")
        yield part


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress zstd, with zstd(1) and a memory limit."""
    import threading

    if find("zstd") is None:
        raise Rejected(
            "A layer of the image is packed by zstd, which this server has not.", holds="Nothing was received.",
            hint=f"On the server, once: {as_root('apt install zstd')}",
        )  # fmt: skip
    reader, writer = os.pipe()
    program = start(["zstd", "-dcqq", "--memory=256MB"], stdin=reader, stdout=PIPE)
    os.close(reader)
    assert program.stdout is not None

    def feed() -> None:
        # Reading stops early if the layer is damaged, or larger than the disk's room.
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:
            for chunk in chunks:
                pipe.write(chunk)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        while part := program.stdout.read(CHUNK):
            yield part
        if program.wait():
            raise zlib.error("zstd does not take it")
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
        feeder.join()


def of_an_image(name: str) -> bool:
    """Whether docker's or podman's `save` writes a file of this name."""
    top = name.split("/")[0]
    return top in ("blobs", "oci-layout") or (len(top.partition(".")[0]) == 64 and bool(hex_of(top)))


def hex_of(name: str) -> str:
    """The SHA-256 in a file's name; "" if there is none."""
    found = posixpath.basename(name).partition(".")[0]
    return found if len(found) == 64 and not set(found) - set("0123456789abcdef") else ""


def _digest(descriptor: Any) -> str:
    told = descriptor.get("digest") if isinstance(descriptor, dict) else None
    kind, _, found = told.partition(":") if isinstance(told, str) else ("", "", "")
    if kind != "sha256" or hex_of(found) != found or not found:
        raise bad("a digest in it is none of SHA-256")
    return found


def _json(raw: bytes, kind: type = dict) -> Any:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise bad("its description is no JSON") from error
    if not isinstance(found, kind):
        raise bad("its description is not what docker or podman writes")
    return found


def _shown(name: Any) -> str:
    return printable(str(name))[:120].replace("\n", " ") if isinstance(name, str) else ""
