"""Layers of an image that are sent before it, one by one: if the transfer of a later one is cut off, the earlier ones
need not be sent again. An archive that arrives later and names them is completed with them."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from receiver.errors import Rejected
from receiver.paths import AppPaths
from receiver.sources.archive import sent
from receiver.sources.image_archive import CHUNK, OCI, opened
from receiver.sources.image_members import BLOCK, Members
from receiver.sources.limits import too_large
from receiver.sources.oci import Layout

KEPT = 86400  # seconds for which a layer is kept without its image


class Parts:
    """The waiting layers of one app, named by their digests."""

    def __init__(self, paths: AppPaths) -> None:
        self._place = paths.repo / "image-parts"

    def there(self) -> dict[str, Path]:
        """The layers by their digests."""
        try:
            return {f"sha256:{path.name}": path for path in self._place.iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return {}

    def add(self, digest: str, source: int, limit: int) -> int:
        """Read a layer from a descriptor; returns its size. Raises Rejected if all layers together exceed `limit`
        bytes, or if it is cut off or does not match its digest; then nothing of it is kept."""
        self._place.mkdir(mode=0o700, exist_ok=True)
        for old, known in self._all():
            if known.st_mtime < time.time() - KEPT:
                old.unlink(missing_ok=True)
        found, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self._place, prefix=".", delete=False) as file:
            try:
                for chunk in sent(source):
                    size += len(chunk)
                    # Several may arrive at once: count what the others have received so far.
                    if size + sum(known.st_size for path, known in self._all() if path != Path(file.name)) > limit:
                        raise too_large("The image", limit)
                    found.update(chunk)
                    file.write(chunk)
                if f"sha256:{found.hexdigest()}" != digest:
                    raise Rejected(
                        "The layer is cut off, or not the one that its digest names.", holds="Nothing was received."
                    )
                file.flush()
                Path(file.name).replace(self._place / digest.removeprefix("sha256:"))
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        return size

    def _all(self) -> list[tuple[Path, os.stat_result]]:
        """All layers, including those that are still arriving."""
        found = []
        for path in self._place.iterdir():
            with suppress(FileNotFoundError):
                found.append((path, path.stat()))
        return found

    def complete(self, file: IO[bytes]) -> list[str]:
        """Append to an OCI archive the layers that it names and lacks, and that are here; returns their digests."""
        here = self.there()
        if not here:
            return []
        archive = opened(file)
        if not archive.has(OCI):
            return []
        _, _, layers, _ = archive.oci()
        wanted = [f"sha256:{blob}" for name, blob in layers if not archive.has(name) and f"sha256:{blob}" in here]
        if not wanted:
            return []
        ends = [member.start + -(-member.size // BLOCK) * BLOCK for member in Members(file)]
        file.seek(max(ends))
        layout = Layout(file)
        for digest in wanted:
            with here[digest].open("rb") as part:
                layout.blob(digest, os.fstat(part.fileno()).st_size, _chunks(part))
        file.write(b"\0" * BLOCK * 2)
        file.flush()
        return wanted

    def forget(self) -> None:
        """Remove all: their image has arrived."""
        for path in self.there().values():
            path.unlink(missing_ok=True)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
