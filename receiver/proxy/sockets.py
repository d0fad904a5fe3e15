"""The names of the connected unix sockets, read from the kernel in binary (sock_diag(7)).

/proc/net/unix is text with a line for each socket, and a name may contain a line break: any program could forge a line
about another app's socket.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
UDIAG_SHOW_NAME, UDIAG_SHOW_RQLEN = 0x1, 0x10
UNIX_DIAG_NAME, UNIX_DIAG_RQLEN = 0, 4
TCP_LISTEN = 10
# __SO_ACCEPTCON in the Flags of /proc/net/unix (proc(5)): the socket listens and is no connection.
LISTENS = 0x10000

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBHIIIII")  # family, protocol, -, states, inode, show, cookie
_FOUND = struct.Struct("=BBBBIII")  # family, type, state, -, inode, cookie
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_PROC = Path("/proc/net/unix")


def connected() -> Iterator[str]:
    """The path of each end of a connection, once for each end. For accepted and waiting connections it is the
    listener's path; "" for an end without a path."""
    try:
        yield from asked()
    except OSError:
        # A kernel without unix_diag. The worst that a forged line can do is make a drain last its whole time.
        yield from read(_PROC)


def asked() -> list[str]:
    """As `connected`, by netlink(7); raises OSError if the kernel does not answer."""
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN, 0, 0)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    header = _HEADER.pack(_HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    found: list[str] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        kernel.sendall(header + request)
        while True:
            data = memoryview(kernel.recv(1 << 18))
            while data:
                length, kind, _, _, _ = _HEADER.unpack_from(data)
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, _HEADER.size)[0], "sock_diag(7)")
                _, _, state, *_ = _FOUND.unpack_from(data, _HEADER.size)
                known = _attributes(data[_HEADER.size + _FOUND.size : length])
                # A waiting connection has no entry of its own; it is counted in its listener's queue.
                waiting = known.get(UNIX_DIAG_RQLEN, bytes(4))
                often = int.from_bytes(waiting[:4], sys.byteorder) if state == TCP_LISTEN else 1
                found += [_path(known.get(UNIX_DIAG_NAME, b""))] * often
                data = data[_aligned(length) :]


def _attributes(data: memoryview) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind] = bytes(data[_ATTRIBUTE.size : length])
        data = data[_aligned(length) :]
    return found


def _path(name: bytes) -> str:
    """A path, without its final zero byte. An abstract name, which is no path, begins with a zero byte."""
    return "" if name[:1] == b"\0" else name.rstrip(b"\0").decode(errors="surrogateescape")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def read(table: Path) -> list[str]:
    """As `connected`, from the kernel's text table (proc(5), /proc/net/unix)."""
    found = []
    with table.open(errors="surrogateescape") as lines:
        next(lines)
        for line in lines:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and not int(fields[3], 16) & LISTENS:
                found.append(fields[7].rstrip("\n"))
    return found
