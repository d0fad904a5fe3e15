"""Container images that were sent (`docker save`, `podman save`, an OCI archive), or fetched from a registry.

An image is no tree: its archive goes to podman unchanged (inside/image.py), and no process with more rights than the
app's user unpacks it. The commit holds a pointer to the image, its digest, with the Procfile and the shipit.yml from
its labels (sources/image_archive.py).
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from receiver.errors import Rejected
from receiver.model import Origin
from receiver.names import Oid
from receiver.sources.base import Stored
from receiver.sources.git.receive import REF, Check, received
from receiver.sources.git.repository import Git
from receiver.sources.image_archive import CHUNK, DOCKER, GZIP, OCI, examined, hex_of, of_an_image
from receiver.sources.image_members import BLOCK, Members, until_damage
from receiver.sources.image_parts import Parts
from receiver.sources.limits import Limits

POINTER = "shipit-image.json"


class ImageSource(Stored):
    """The source of what `docker save IMAGE | ssh HOST deploy APP -` brought."""

    kind = "image"

    def takes(self, file: IO[bytes]) -> bool:
        head = os.pread(file.fileno(), CHUNK // 16, 0)
        if head[:2] == GZIP:
            # This file begins as a compressed image would: then `receive` explains how to send an image.
            with suppress(zlib.error):
                head = zlib.decompressobj(31).decompress(head, BLOCK)
            name = head[:100].split(b"\0")[0].decode(errors="replace")
            return head[257:262] == b"ustar" and bool(hex_of(name.split("/")[0]))
        try:
            names = {member.name for member in Members(file)}
        except Rejected:
            # Cut off, or no tar at all: decide by the first entry.
            first = next(iter(until_damage(Members(file))), None)
            return first is not None and of_an_image(first.name)
        return (DOCKER in names and any(of_an_image(name) for name in names - {DOCKER})) or {
            OCI,
            "oci-layout",
        } <= names

    def receive(
        self, file: IO[bytes], limits: Limits, *, by: str, parent: Oid | None, said: str, check: Check
    ) -> tuple[Origin, list[str]]:
        if said:
            raise Rejected("This is a container image.", hint="Leave out --archive-type.")
        if os.pread(file.fileno(), 2, 0) == GZIP:
            raise Rejected(
                "This is a container image that went through gzip.", holds="Nothing was received.",
                hint="Send it as it is; ssh compresses it: docker save IMAGE | ssh -C HOST deploy APP -",
            )  # fmt: skip
        parts = Parts(self.paths)
        parts.complete(file)
        image = examined(file, limits)
        pointer = {
            "id": image.id,
            "name": image.name,
            "port": image.port,
            "layers": image.layers,
            "workdir": image.workdir,
            **({"check": image.check} if image.check else {}),
        }
        files = {
            POINTER: json.dumps(pointer, indent=1) + "\n",
            **image.files,
        }
        title = f"{image.name} from {by}" if image.name else f"image from {by}"

        def fill(git: Git) -> None:
            git.run("fast-import", "--quiet", input=commit(files, title, parent))

        oid = received(self.paths.repo, fill, check)
        self._lay_down(file, image.id)
        parts.forget()
        return Origin(self.kind, oid, title=title, author=by, ref=image.id[:19]), [
            f"{image.name or 'An image'}, {len(image.layers)} layers, {image.size / 2**20:.1f} MiB",
        ]

    def _lay_down(self, file: IO[bytes], image: str) -> None:
        """Put the archive where the build finds it, in place of an earlier one, whose build is over."""
        place = self.paths.received_images
        place.mkdir(mode=0o750, exist_ok=True)
        for left in place.iterdir():
            left.unlink()
        with open(  # noqa: PTH123
            os.open(place / f"{image.removeprefix('sha256:')}.tar", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb"
        ) as copy:
            size, done = os.fstat(file.fileno()).st_size, 0
            while done < size:
                done += os.sendfile(copy.fileno(), file.fileno(), done, size - done)


def commit(files: Mapping[str, str], title: str, parent: Oid | None) -> bytes:
    """A commit of these files in git fast-import's format."""
    message = title.encode(errors="replace")
    lines = [
        b"commit %s\ncommitter shipit <shipit@localhost> %d +0000\ndata %d\n%s"
        % (REF.encode(), int(time.time()), len(message), message)
    ]
    lines += [b"from %s" % parent.encode()] if parent else []
    lines.append(b"deleteall")
    for name, content in files.items():
        raw = content.encode(errors="replace")
        lines.append(b"M 100644 inline %s\ndata %d\n%s" % (name.encode(), len(raw), raw))
    return b"\n".join([*lines, b"done", b""])
