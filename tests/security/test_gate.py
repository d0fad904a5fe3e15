"""The ssh gate of a whole server (threat row 8); its grammar and its keys are in tests/git/test_gate.py."""

from __future__ import annotations

import socket

from host.apps import pushed
from lab.client import Client
from lab.host import Host

IDLE = 50


def test_strangers_who_connect_and_say_nothing_keep_no_push_out(client: Client, host: Host) -> None:
    """sshd's own MaxStartups (10:30:100) would refuse most connections by now."""
    repo = pushed(client, "calm", "one")
    idle = [socket.create_connection((host.ip, 22), timeout=20) for _ in range(IDLE)]
    try:
        for connection in idle:
            assert connection.recv(4) == b"SSH-", "sshd refused one of the strangers, so they do not fill its places"
        for number in range(3):
            repo.commit({"mark": f"{number}\n"})
            result = repo.push()
            assert result.code == 0, str(result)
    finally:
        for connection in idle:
            connection.close()
    # A limit that the administrator has set is not ours to change.
    host.write("/etc/ssh/sshd_config.d/local.conf", "MaxStartups 7:30:70\n")
    host.install()
    assert "maxstartups 7:30:70" in host.sh("sshd -T").out.splitlines()
    assert "\nMaxStartups" not in host.read("/etc/ssh/sshd_config.d/shipit.conf")
