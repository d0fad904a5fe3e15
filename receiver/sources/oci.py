"""Writes an OCI archive: a tar of blobs, each named by its digest (the OCI image specification)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import IO

from receiver.errors import HostFault

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
# Names of processors: uname(2)'s → Go's, which images use.
PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
BLOCK = 512


class Layout:
    """Writes an archive from front to back, so that it can go through a pipe."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._written: set[str] = set()

    def blob(self, digest: str, size: int, parts: Iterable[bytes]) -> None:
        """Add a blob with this digest, unless it is there; `parts` have `size` bytes together."""
        if digest in self._written:
            return
        self._written.add(digest)
        self._member(f"blobs/sha256/{digest.removeprefix('sha256:')}", size, parts)

    def add(self, raw: bytes) -> str:
        """Add a blob; returns its digest."""
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.blob(digest, len(raw), (raw,))
        return digest

    def finish(self, manifest: bytes, name: str) -> None:
        """Write the image's manifest, the index that leads to it, and the end of the archive."""
        entry = {"mediaType": MANIFEST, "digest": self.add(manifest), "size": len(manifest)}
        named = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        for path, told in (
            ("index.json", {"schemaVersion": 2, "manifests": [{**entry, **named}]}),
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ):
            raw = json.dumps(told).encode()
            self._member(path, len(raw), (raw,))
        self._file.write(b"\0" * BLOCK * 2)

    def _member(self, name: str, size: int, parts: Iterable[bytes]) -> None:
        import tarfile

        info = tarfile.TarInfo(name)
        info.size = size
        self._file.write(info.tobuf(tarfile.GNU_FORMAT))
        done = 0
        for part in parts:
            done += len(part)
            self._file.write(part)
        if done != size:
            raise HostFault(f"{name} has {done} bytes, and was said to have {size}.")
        self._file.write(b"\0" * (-size % BLOCK))
