"""Disks of virtual machines as releases, on one server with qemu, from outside: ssh HOST deploy APP - < DISK"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator

import pytest
from host.apps import asked, live, newest, say, unwell
from host.test_across import given
from lab import snapshot
from lab.background import Background, wait_for
from lab.client import Client
from lab.host import Host
from lab.tree import SUITE

from contract.sources.disks import broken, disks, server_with_qemu

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.xdist_group("disks")]
# A machine that nobody helps (no KVM) takes its time to start, beside other tests the more.
BOOT = 240
YML = """\
keep: 2
vm: {port: 8000, data: 16M}
proxy: {timeout: 300}
processes: {web: {memory: 192M, cpu: 100%, drain: 120}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Host]:
    with server_with_qemu("machines", SUITE) as host:
        yield host


@pytest.fixture(scope="module")
def admin(server: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server, tmp_path_factory.mktemp("admin"), key=snapshot.admin_key())


def disk(name: str) -> bytes:
    return (disks() / name).read_bytes()


def beside(yml: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, raw in (("shipit.yml", yml.encode()), ("disk", content)):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def await_answer(admin: Client, app: str, text: str) -> None:
    """A request waits for a machine that is starting; before its launcher is up, there is nobody to wait for."""
    wait_for(f"{app} to answer {text!r}", lambda: admin.get(app, timeout=BOOT).body.strip() == text, timeout=BOOT)


def bases(server: Host) -> set[str]:
    """The disks that are stored for the app, each by its number on the file system."""
    return set(
        server.sh("find /var/lib/shipit/apps/shop/slugs -name base.qcow2 -printf '%i\\n'", check=True).out.split()
    )


def has_disk(server: Host, release: str) -> bool:
    """Whether the machine of this release runs."""
    return server.sh(f"pgrep -f '^/usr/bin/qemu-system.*/slugs/{release}/'", check=False).ok


def seen(admin: Client, app: str) -> str:
    """What the machine tells of itself."""
    return admin.get(app, "/seen").body


def boots(admin: Client, app: str) -> list[str]:
    """What each machine has written on the app's disk when it started."""
    return [line for line in seen(admin, app).splitlines() if line.startswith(("one ", "two ", "was "))]


def test_a_disk_is_a_release_and_what_it_keeps_goes_from_machine_to_machine(server: Host, admin: Client) -> None:
    say(admin, "apps:create", "shop", check=True)
    assert say(admin, "config:set", "shop", "WORD", "-", input="a b\ntwo").code == 0
    first = admin.ssh("deploy shop -", input=beside(YML, disk("one.qcow2")), timeout=BOOT)
    assert first.code == 0 and admin.get("shop").body.strip() == "one", str(first)
    row = newest(admin, "shop")
    assert (row["release"], row["status"], row["source"]) == ("v2", "live", "disk")
    told = seen(admin, "shop")
    assert "release=v2 web.1\nword=a b\ntwo\npem=\ncpus=1\n" in told, told
    assert 130_000 < int(told.split("MemTotal:")[1].split()[0]) < 192 * 1024, "kB, as its limit says"
    commands = server.sh("cat /proc/*/cmdline | tr '\\0' '\\n'", check=False).out
    assert "qemu-system-x86_64" in commands and "a b" not in commands.splitlines()
    uid = server.sh("id -u app-shop", check=True).out.strip()
    owner = server.sh("stat -c '%U %a' /var/lib/shipit/apps/shop/slugs/v2/.disk/base.qcow2", check=True).out.split()
    assert owner[0] == "build-shop" and owner[1] == "640", "who runs the machine cannot write its disk"
    pid = server.sh("pgrep -f ^/usr/bin/qemu-system", check=True).out.split()[0]
    status = server.sh(f"cat /proc/{pid}/status /proc/{pid}/cgroup", check=True).out
    assert f"Uid:\t{uid}\t" in status and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert "shipit-shop-web-v2@1.service" in status, "systemd's limits hold for it"

    second = admin.ssh("deploy shop -", input=gzip.compress(disk("two.raw"), 1), timeout=BOOT)
    assert second.code == 0 and admin.get("shop").body.strip() == "two", str(second)
    assert boots(admin, "shop") == ["one v2", "two v3"], "the first one was shut down before the second had the disk"
    logs = say(admin, "logs", "shop", "-n", "200").out
    assert "serves one at 8000" in logs and "ended well" in logs and "\x1b" not in logs, logs

    cannot = admin.ssh("deploy shop -", input=beside(YML, broken()), timeout=BOOT)
    assert cannot.code == 1 and live(admin, "shop") == "v3", str(cannot)
    # It waits until the machine that serves again listens.
    await_answer(admin, "shop", "two")
    # Between the tries of the one that cannot, it had its disk again, each time closed.
    after = boots(admin, "shop")
    assert after[:2] == ["one v2", "two v3"] and set(after[2:]) == {"two v3"}

    back = say(admin, "rollback", "shop", timeout=BOOT)
    assert back.code == 0 and admin.get("shop").body.strip() == "one", str(back)
    assert boots(admin, "shop")[-1] == "one v5"
    alone = [("web.1", "running")]
    wait_for("it to be alone", lambda: [(p["process"], p["state"]) for p in asked(admin, "ps", "shop")] == alone)
    assert len(bases(server)) == 2, "each disk is kept once"
    ran = say(admin, "run", "shop", "ls")
    assert ran.code != 0 and "has its own commands only" in ran.text, str(ran)
    assert not [line for line in unwell(server) if line.startswith("shop")]

    server.reboot()
    await_answer(admin, "shop", "one")
    assert boots(admin, "shop")[-2:] == ["one v5", "one v5"], "and it was shut down cleanly"

    changed = admin.ssh("config:set shop WORD=three", timeout=BOOT)
    assert changed.code == 0 and "word=three\n" in seen(admin, "shop"), str(changed)
    wait_for("the disk of what is pruned to be gone", lambda: len(bases(server)) == 1)

    half = admin.ssh("deploy shop -", input=disk("two.qcow2")[: 2**20])
    assert half.code == 2 and "cut off" in half.text and newest(admin, "shop")["release"] == "v6", str(half)
    # What is given back is the same disk with the same shipit.yml, and is taken.
    with tarfile.open(fileobj=io.BytesIO(given(admin, "shop", "v6"))) as archive:
        inner = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert list(inner) == ["shipit.yml", "disk.qcow2"] and inner["shipit.yml"].decode() == YML
    server.write("/tmp/back.qcow2", inner["disk.qcow2"])
    server.write("/tmp/sent.qcow2", disk("one.qcow2"))
    server.sh("qemu-img compare /tmp/back.qcow2 /tmp/sent.qcow2 && rm /tmp/*.qcow2", check=True)
    with (admin.home / "given").open("rb") as file:
        deploys = Background(admin.ssh_words("deploy", "shop", "-"), file, env=admin.environment, cwd=admin.home)
    wait_for("the new machine to have the disk", lambda: has_disk(server, "v7"), timeout=BOOT)
    server.power_cut()
    deploys.kill()
    await_answer(admin, "shop", "one")
    assert boots(admin, "shop")[-1] == "one v6" and live(admin, "shop") == "v6"
    wait_for("what was interrupted to be over", lambda: newest(admin, "shop")["status"] == "failed")
    wait_for("its disk to be gone", lambda: len(bases(server)) == 1)

    say(admin, "apps:destroy", "shop", "--force", check=True)
    assert not server.sh("pgrep -f ^/usr/bin/qemu-system", check=False).ok


def test_a_disk_that_starts_by_uefi_runs_where_ovmf_is_installed(server: Host, admin: Client) -> None:
    say(admin, "apps:create", "uefi", check=True)
    with server.without("/usr/share/OVMF"):
        told = admin.ssh("deploy uefi -", input=disk("uefi.qcow2"))
    assert told.code == 1 and "apt install --no-install-recommends ovmf" in told.text, str(told)
    done = admin.ssh("deploy uefi -", input=disk("uefi.qcow2"), timeout=BOOT)
    assert done.code == 0 and admin.get("uefi").body.strip() == "uefi", str(done)
    assert "there is no /dev/kvm that this app may use" in say(admin, "logs", "uefi", "-n", "200").out
    say(admin, "apps:destroy", "uefi", "--force", check=True)


def test_without_qemu_the_administrator_is_told_what_to_install(server: Host, admin: Client) -> None:
    say(admin, "apps:create", "noqemu", check=True)
    with server.without("/usr/bin/qemu-img"):
        told = admin.ssh("deploy noqemu -", input=disk("one.qcow2"))
    assert told.code != 0 and "no qemu" in told.err and "apt install" in told.err, str(told)
