"""Disks of virtual machines as releases, on one server with qemu, from outside: ssh HOST deploy APP - < DISK"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from host.apps import live, newest, say
from lab import snapshot
from lab.client import Client
from lab.host import Host

from contract.sources.disks import disks, server_with_qemu

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Host]:
    with server_with_qemu("machines") as host:
        yield host


@pytest.fixture(scope="module")
def admin(server: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server, tmp_path_factory.mktemp("admin"), key=snapshot.admin_key())


def disk(name: str) -> bytes:
    return (disks() / name).read_bytes()


def seen(admin: Client, app: str) -> str:
    """What the machine tells of itself."""
    return admin.get(app, "/seen").body


def test_a_disk_is_a_release_like_any_other(server: Host, admin: Client) -> None:
    say(admin, "apps:create", "shop", check=True)
    first = admin.ssh("deploy shop -", input=disk("one.qcow2"))
    print(first)
    assert first.code == 0 and admin.get("shop").body.strip() == "one", str(first)
    row = newest(admin, "shop")
    assert (row["release"], row["status"], row["source"]) == ("v1", "live", "disk")
    print(seen(admin, "shop"))
    assert live(admin, "shop") == "v1"
