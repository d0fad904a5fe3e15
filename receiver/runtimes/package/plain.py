"""Decompresses parts of a package as a stream, with a limit for the size."""

from __future__ import annotations

import sys
from typing import IO, Any, cast

from receiver.errors import Rejected

# zstd's largest window (2^27 bytes, as `zstd --ultra -22` needs).
WINDOW = 27
# The library's name, for a caller that has to import it before its rights are dropped.
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


class Bounded:
    """A stream that raises Rejected after so many bytes."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._left = file, most

    def read(self, size: int = -1) -> bytes:
        raw = self._file.read(size)
        self._left -= len(raw)
        if self._left < 0:
            raise Rejected("The package unpacks to more than it may.")
        return raw


def plain(kind: str, part: IO[bytes], most: int) -> IO[bytes]:
    """The decompressed stream, of at most `most` bytes; `kind` is `gzip`, `xz`, `lzma`, `bzip2`, `zstd` or "" for none.
    Raises Rejected for any other kind; reading raises the decompressors' errors."""
    found: Any = part
    if kind == "gzip":
        import gzip

        found = gzip.GzipFile(fileobj=part)
    elif kind in ("xz", "lzma"):
        import lzma

        found = lzma.LZMAFile(part)  # noqa: SIM115 - read to its end, and the part is the caller's
    elif kind == "bzip2":
        import bz2

        found = bz2.BZ2File(part)
    elif kind == "zstd":
        found = _zstd(part)
    elif kind:
        raise Rejected(f"The package is compressed by {kind[:20]!a}, which is not known here.")
    return cast(IO[bytes], Bounded(found, most))


def _zstd(part: IO[bytes]) -> Any:
    import importlib

    try:
        zstd = importlib.import_module(ZSTD)
    except ImportError as error:  # on a laptop
        raise Rejected("A package that is compressed by zstd is read on the server only.") from error
    return zstd.ZstdFile(part, options={zstd.DecompressionParameter.window_log_max: WINDOW})


# Names of the decompressors' errors that have no common base class.
FOREIGN = ("error", "LZMAError", "ZstdError")
