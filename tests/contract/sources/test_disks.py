"""Disks of virtual machines as releases, on one server with qemu, from outside: ssh HOST deploy APP - < DISK"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from host.apps import newest, say
from lab import snapshot
from lab.client import Client
from lab.host import Host

from contract.sources.disks import disks, server_with_qemu

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.xdist_group("disks")]
# A machine that nobody helps (no KVM) takes its time to start, beside other tests the more.
BOOT = 240


@pytest.fixture(scope="module")
def server() -> Iterator[Host]:
    with server_with_qemu("machines") as host:
        yield host


@pytest.fixture(scope="module")
def admin(server: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server, tmp_path_factory.mktemp("admin"), key=snapshot.admin_key())


def disk(name: str) -> bytes:
    return (disks() / name).read_bytes()


def test_a_disk_is_a_release_like_any_other(admin: Client) -> None:
    say(admin, "apps:create", "shop", check=True)
    first = admin.ssh("deploy shop -", input=disk("one.qcow2"), timeout=BOOT)
    assert first.code == 0 and admin.get("shop").body.strip() == "one", str(first)
    row = newest(admin, "shop")
    assert (row["release"], row["status"], row["source"]) == ("v1", "live", "disk")


def test_without_qemu_the_administrator_is_told_what_to_install(server: Host, admin: Client) -> None:
    say(admin, "apps:create", "noqemu", check=True)
    server.sh("mv /usr/bin/qemu-img /usr/bin/qemu-img.away", check=True)
    try:
        told = admin.ssh("deploy noqemu -", input=disk("one.qcow2"))
    finally:
        server.sh("mv /usr/bin/qemu-img.away /usr/bin/qemu-img", check=True)
    assert told.code != 0 and "no qemu" in told.err and "apt install" in told.err, str(told)
