"""Reads a virtual machine's disk image: qcow2 or raw, its size, whether it is complete, and how it boots.

A qcow2 can name any file of the machine that opens it, as its backing file or as its data file. So we read its header
before qemu sees the image, and refuse everything unusual. Standard library only.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import NamedTuple

MAGIC = b"QFI\xfb"
SECTOR = 512
QCOW2, RAW = "qcow2", "raw"
# Bits of a header's incompatible features: it was not closed; it is known to be damaged; its data is in another file; …
DIRTY, CORRUPT, EXTERNAL, ZSTD, EXTENDED_L2 = 1, 2, 4, 8, 16
# Header extensions of a qcow2: the name of an external data file, the format of a backing file, encryption (LUKS).
FORBIDDEN = {0x44415441: "keeps its data in another file", 0xE2792ACA: "has a backing file", 0x0537BE77: "is encrypted"}
END, EXTENSION_LIMIT = 0, 2**16
MAX_SIZE = 2**46  # bytes of a disk; the server's free space sets a lower limit
MOST_CLUSTERS = 2**24  # clusters with content: 1 TiB in qemu's default size. More would take minutes to check
OFFSET = 0x00FFFFFFFFFFFE00
COMPRESSED, ZERO = 1 << 62, 1
GPT = b"EFI PART"
INSTALL = "apt install --no-install-recommends"
BOOT_CODE = slice(0, 440)
# The firmware for machines that boot by UEFI (Debian's package ovmf), and its variable store.
UEFI, UEFI_VARIABLES = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"


class Wrong(Exception):
    """What is wrong with a disk image, as a clause: `it is cut off`."""


class Disk(NamedTuple):
    """`size`: bytes of the disk as the machine sees it."""

    format: str
    size: int


def is_disk(head: bytes) -> bool:
    """Whether a file with this beginning (1 KiB suffices) is a disk: a qcow2, or raw with a partition table."""
    return head.startswith(MAGIC) or _partitions(head) is not None or head[SECTOR : SECTOR + 8] == GPT


def examined(fd: int, start: int, length: int) -> Disk:
    """Check the image at `start` of a file; raises Wrong if it is unusual or incomplete."""
    image = _Part(fd, start, length)
    head = image.read(0, 2 * SECTOR)
    if head.startswith(MAGIC):
        return _qcow2(image)
    if not is_disk(head):
        raise Wrong("it is neither a qcow2 nor a disk with a partition table")
    return _raw(image, head)


def starts_by_uefi(first: bytes) -> bool:
    """Whether a disk with this first sector has nothing that a BIOS could start."""
    return not any(first[BOOT_CODE])


def no_firmware(firmware: str) -> str:
    """What this server lacks to boot a disk with this firmware, and how to install it; "" if it lacks nothing."""
    if firmware != "uefi" or all(map(os.path.exists, (UEFI, UEFI_VARIABLES))):
        return ""
    return (
        "The machine starts by UEFI, and this server has no firmware for that. "
        f"On the server, once, as root: {INSTALL} ovmf"
    )


class _Part:
    def __init__(self, fd: int, start: int, length: int) -> None:
        self._fd, self._start, self.length = fd, start, length

    def read(self, at: int, size: int) -> bytes:
        """The bytes at this place; fewer at the end."""
        size = max(0, min(size, self.length - at))
        return os.pread(self._fd, size, self._start + at) if size else b""

    def whole(self, at: int, size: int) -> bytes:
        """Exactly `size` bytes; raises Wrong if the image ends before."""
        if at < 0 or at + size > self.length:
            raise Wrong("it is cut off")
        return self.read(at, size)


def _qcow2(image: _Part) -> Disk:
    head = image.whole(0, 72)
    (version, backing, backing_size, cluster_bits, size, crypt, l1_size, l1_at, _, _, snapshots, _) = struct.unpack(
        ">IQIIQIIQQIIQ", head[4:72]
    )
    if version not in (2, 3):
        raise Wrong(f"it is a qcow2 of version {version}; qemu writes 2 and 3")
    if backing or backing_size:
        raise Wrong("it has a backing file: send the whole disk (qemu-img convert -O qcow2 DISK WHOLE)")
    if crypt:
        raise Wrong("it is encrypted")
    if snapshots:
        raise Wrong("it holds snapshots: send one state (qemu-img convert -O qcow2 DISK PLAIN)")
    if not 12 <= cluster_bits <= 21:
        raise Wrong("its header is damaged")
    features, length = 0, 72
    if version == 3:
        features, _, _, _, length = struct.unpack(">QQQII", image.whole(72, 32))
        if not 104 <= length <= 1 << cluster_bits:
            raise Wrong("its header is damaged")
    for bit, what in ((CORRUPT, "it is marked as damaged"), (EXTERNAL, "it keeps its data in another file")):
        if features & bit:
            raise Wrong(what)
    if features & ~(DIRTY | ZSTD | EXTENDED_L2):
        raise Wrong("it uses a feature of qcow2 that shipit does not know")
    _extensions(image, length, 1 << cluster_bits)
    if not size or size > MAX_SIZE:
        raise Wrong(f"it says that the disk has {size} bytes")
    _tables(image, size, cluster_bits, l1_at, l1_size, 16 if features & EXTENDED_L2 else 8)
    return Disk(QCOW2, size)


def _extensions(image: _Part, at: int, end: int) -> None:
    while at + 8 <= min(end, EXTENSION_LIMIT):
        kind, length = struct.unpack(">II", image.whole(at, 8))
        if kind == END:
            return
        if what := FORBIDDEN.get(kind):
            raise Wrong(f"it {what}")
        if length > end - at:
            raise Wrong("its header is damaged")
        at += 8 + (length + 7) // 8 * 8


def _tables(image: _Part, size: int, cluster_bits: int, l1_at: int, l1_size: int, entry: int) -> None:
    """Follow the tables of a qcow2 and check that each of its clusters is inside the file."""
    cluster = 1 << cluster_bits
    each = cluster // entry  # entries of a second-level table
    seen: set[int] = set()
    room = image.length // 32  # a limit for the entries of all tables, so that a bad image cannot take hours
    follow = MOST_CLUSTERS
    wanted = -(-size // (each * cluster))
    # qemu itself allows 32 MiB for this table.
    if l1_size < wanted or l1_size > 2**22:
        raise Wrong("its header is damaged")
    if l1_at % cluster:
        raise Wrong("its header is damaged")
    for number, (word,) in enumerate(struct.iter_unpack(">Q", image.whole(l1_at, wanted * 8))):
        at = word & OFFSET
        if not at:
            continue
        whole = struct.unpack(f">{cluster // 8}Q", image.whole(at, cluster))
        words = whole[:: entry // 8]
        count = sum(map(bool, words))
        room, follow = room - count, follow - count
        if follow < 0:
            raise Wrong(f"it has content in more than {MOST_CLUSTERS} clusters: qemu-img convert makes larger ones")
        # Without snapshots no table is used twice.
        if at % cluster or at in seen or room < 0:
            raise Wrong("its tables are damaged")
        seen.add(at)
        for index, word in enumerate(words):
            if word:
                left = min(cluster, size - (number * each + index) * cluster)
                if entry == 16:
                    # Only some of a cluster's 32 parts may have content.
                    left = min(left, (whole[2 * index + 1] & 0xFFFFFFFF).bit_length() * (cluster // 32))
                _cluster(image, word, cluster_bits, left, plain=entry == 8)


def _cluster(image: _Part, word: int, cluster_bits: int, left: int, *, plain: bool) -> None:
    """Check one cluster; only its first `left` bytes belong to the disk, and the rest may be missing."""
    cluster = 1 << cluster_bits
    if word & COMPRESSED:
        bits = 62 - (cluster_bits - 8)
        at = word & ((1 << bits) - 1)
        # The length is given in further sectors; the last of them may be incomplete.
        further = (word & (COMPRESSED - 1)) >> bits
        need = further * SECTOR - at % SECTOR + 1 if further else 1
    else:
        at = word & OFFSET
        if not at or (plain and word & ZERO):
            return
        if at % cluster:
            raise Wrong("its tables are damaged")
        need = max(1, left)
    if at + need > image.length:
        raise Wrong("it is cut off")


def _raw(image: _Part, head: bytes) -> Disk:
    """Check a raw disk: its partition table says how long it is."""
    end = 0
    if head[SECTOR : SECTOR + 8] == GPT:
        known = image.whole(SECTOR, 92)
        size, told = struct.unpack("<II", known[12:20])
        if not 92 <= size <= SECTOR or zlib.crc32(known[:16] + b"\0\0\0\0" + head[SECTOR + 20 : SECTOR + size]) != told:
            raise Wrong("its partition table is damaged")
        # The backup of the partition table (GPT) is in the last sector.
        end = (int.from_bytes(known[32:40], "little") + 1) * SECTOR
    else:
        end = max((first + count) * SECTOR for first, count in _partitions(head) or [(0, 1)])
    if end > image.length:
        raise Wrong("it is cut off")
    if image.length > MAX_SIZE:
        raise Wrong(f"it has {image.length} bytes")
    return Disk(RAW, image.length)


def _partitions(head: bytes) -> list[tuple[int, int]] | None:
    """First sector and count of each partition in an MBR; None if this is no MBR."""
    if head[510:512] != b"\x55\xaa":
        return None
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    if any(entry[0] not in (0, 0x80) for entry in entries):
        return None
    found = [
        (int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little"))
        for entry in entries
        # A protective entry (0xEE) does not give the size of the disk.
        if entry[4] and entry[4] != 0xEE
    ]
    if any(not first or not count for first, count in found):
        return None
    return found if found or any(entry[4] for entry in entries) else None
