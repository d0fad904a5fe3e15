"""A qcow2 as qemu-img writes it, made by hand, so that each part of it can be made wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence

CLUSTER = 2**16
# A master boot record with one partition of 16 KiB, and code that a BIOS would start.
MBR = b"\xfa".ljust(446, b"\x90") + bytes([0x80, 0, 0, 0, 6, 0, 0, 0]) + struct.pack("<II", 32, 32)
MBR = MBR.ljust(510, b"\0") + b"\x55\xaa"
RAW = MBR.ljust(64 * 512, b"\1")


def qcow2(
    *, version: int = 3, backing: int = 0, backing_size: int = 0, bits: int = 16, size: int = 4 * CLUSTER, crypt: int = 0,
    l1_size: int = 1, l1_at: int = CLUSTER, snapshots: int = 0, features: int = 0, length: int = 104,
    extensions: Sequence[tuple[int, bytes]] = (), l1: int = 2 * CLUSTER, l2: Sequence[int] = (3 * CLUSTER,), data: bytes = RAW,
) -> bytes:  # fmt: skip
    """Clusters: header, table of the first level, one of the second, the content of the disk's first cluster."""
    head = b"QFI\xfb" + struct.pack(
        ">IQIIQIIQQIIQ", version, backing, backing_size, bits, size, crypt, l1_size, l1_at, 0, 0, snapshots, 0
    )
    head += struct.pack(">QQQII", features, 0, 0, 4, length) if version == 3 else b""
    for kind, content in extensions:
        head += struct.pack(">II", kind, len(content)) + content.ljust(-(-len(content) // 8) * 8, b"\0")
    parts = (head, struct.pack(">Q", l1), b"".join(struct.pack(">Q", word) for word in l2), data)
    return b"".join(part.ljust(CLUSTER, b"\0") for part in parts)
