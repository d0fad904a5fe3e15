"""The connection to a worker: one makes one release."""

from __future__ import annotations

import socket

from receiver.errors import HostFault
from receiver.paths import Layout


def connect_worker(layout: Layout) -> socket.socket:
    """A connection to a fresh worker; raises HostFault with what to type when nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(layout.worker_socket))
    except OSError as error:
        connection.close()
        raise HostFault(
            f"The worker cannot be reached ({error.strerror}).", holds="Nothing was changed.", hint="sudo shipit doctor"
        ) from error
    return connection
