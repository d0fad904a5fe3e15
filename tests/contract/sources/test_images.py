"""Container images as releases, on one server with podman, from outside: docker save IMG | ssh HOST deploy APP -"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host.apps import asked, live, newest, say, until_body, unwell
from lab import snapshot
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from contract.sources.images import build, saved, server_with_podman

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Host]:
    with server_with_podman("images") as host:
        yield host


@pytest.fixture(scope="module")
def admin(server: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server, tmp_path_factory.mktemp("admin"), key=snapshot.admin_key())


@pytest.fixture(scope="module")
def images(server: Host) -> dict[str, bytes]:
    """`one` as docker writes it, `two` as an OCI archive and with a worker and a release command, `broken`."""
    build(server, "web:one", "one")
    build(
        server, "web:two", "two",
        'LABEL shipit.process.worker="sleep 1000" shipit.release="echo $MARK > /data/released"',
        'LABEL shipit.yml="{processes: {worker: {count: 1}, web: {drain: 20}}}"',
        "ENV FIXED=80", "EXPOSE 80 9000/udp",
    )  # fmt: skip
    build(server, "web:broken", "broken", 'CMD ["/bin/sh", "-c", "echo cannot; exit 3"]')
    return {
        "one": saved(server, "web:one"),
        "two": saved(server, "web:two", "oci-archive"),
        "broken": saved(server, "web:broken"),
    }


@pytest.fixture
def app(admin: Client, images: dict[str, bytes], request: pytest.FixtureRequest) -> str:
    """An app whose first release is the image `one`."""
    name = f"image-{abs(hash(request.node.name)) % 10**6}"
    say(admin, "apps:create", name, check=True)
    first = admin.ssh(f"deploy {name} -", input=images["one"])
    assert first.code == 0, str(first)
    return name


def seen(admin: Client, app: str) -> str:
    """What the process tells of itself."""
    return admin.get(app, "/seen").body


def test_an_image_is_a_release_like_any_other(server: Host, admin: Client, images: dict[str, bytes], app: str) -> None:
    assert admin.get(app).body.strip() == "one"
    row = newest(admin, app)
    assert (row["release"], row["status"], row["source"]) == ("v1", "live", "image")
    with admin.load(app) as load:
        second = admin.ssh(f"deploy {app} -", input=images["two"])
        assert second.code == 0, str(second)
        load.wait_for_body("two\n")
        assert say(admin, "config:set", app, "PEM", "-", input="one\ntwo").code == 0
        assert say(admin, "config:set", app, "WORD=a b", "TMPDIR=/elsewhere").code == 0
        assert say(admin, "rollback", app, "v1").code == 0
        load.wait_for_body("one\n")
    assert load.stop().failed == 0, load.stop()
    told = server.sh(f"cat /var/lib/shipit/apps/{app}/data/released", check=True)
    assert told.out == "two\n", "the release command"
    assert say(admin, "rollback", app, "v4").code == 0
    assert "word=a b\npem=one\ntwo\ntmpdir=/elsewhere\n" in seen(admin, app)
    commands = server.sh("cat /proc/*/cmdline | tr '\\0' '\\n'", check=False).out
    assert "a b" not in commands.splitlines() and "/elsewhere" not in commands
    assert {(p["process"], p["state"]) for p in asked(admin, "ps", app)} == {
        ("web.1", "running"), ("worker.1", "running")
    }  # fmt: skip
    ran = say(admin, "run", app, "echo $MARK; id -u; exit 7")
    assert (ran.code, ran.out) == (7, "two\n0\n"), str(ran)
    assert say(admin, "run", app, "cat", input="through\n").out == "through\n"
    assert "serves two" in say(admin, "logs", app, "-n", "50").out
    # What is replaced is told to end, and has its time for it.
    assert "ended well" in say(admin, "logs", app, "-n", "200").out
    assert say(admin, "ps:scale", app, "web=2").code == 0
    assert len([p for p in asked(admin, "ps", app) if p["process"].startswith("web")]) == 2
    again = say(admin, "deploy", app)
    assert again.code == 0 and admin.get(app).body.strip() == "two", str(again)


def test_root_in_the_container_is_the_app_outside_and_has_no_right_on_the_machine(
    server: Host, admin: Client, app: str
) -> None:
    uid = server.sh(f"id -u app-{app}", check=True).out.strip()
    told = seen(admin, app)
    assert "uid=0\n" in told and "wrote\n" in told
    assert [line.split() for line in told.splitlines() if line.split()[:1] == ["0"]] == [["0", uid, "1"]]
    fields = dict(line.split(":\t") for line in told.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert "No such file" in told.splitlines()[-1], "nothing of the machine's files is there"
    pids = server.sh(f"pgrep -u app-{app} httpd", check=True).out.split()
    unit = server.sh(f"cat /proc/{pids[0]}/cgroup", check=True).out
    assert f"shipit-{app.replace('-', '_')}-web-v1@1.service" in unit, "systemd's limits hold for it"
    denied = say(admin, "run", app, "mkdir /data/x && echo made; echo 1 > /proc/sys/kernel/sysrq; ls /root/.ssh")
    assert "made" in denied.out and denied.code != 0, str(denied)


def test_what_does_not_start_leaves_the_old_one_and_is_not_kept(
    server: Host, admin: Client, images: dict[str, bytes], app: str
) -> None:
    broken = admin.ssh(f"deploy {app} -", input=images["broken"])
    assert broken.code == 1 and "cannot" in broken.out, str(broken)
    assert (live(admin, app), admin.get(app).body.strip()) == ("v1", "one")
    assert admin.ssh(f"deploy {app} -", input=images["two"]).code == 0
    store = f"/var/lib/shipit/images/{app}/overlay-images"
    kept = json.loads(server.read(f"{store}/images.json"))
    assert len(kept) == 2, "the one that failed has gone"
    say(admin, "apps:destroy", app, "--force", check=True)
    assert not server.exists(f"/var/lib/shipit/images/{app}")


def test_after_a_reboot_and_a_crash_it_is_there_again(server: Host, admin: Client, app: str) -> None:
    server.sh(f"pkill -KILL -u app-{app} httpd; pkill -KILL -u app-{app} conmon", check=False)
    wait_for("the process to be back", lambda: admin.get(app).body.strip() == "one", timeout=30)
    server.reboot()
    until_body(admin, app, "one")
    assert say(admin, "ps:restart", app).code == 0
    assert admin.get(app).body.strip() == "one"
    assert not [line for line in unwell(server) if line.startswith(app)]


Change = Callable[[dict[str, bytes]], None]


def edited(image: bytes, change: Change) -> bytes:
    """The same archive with other contents; a name that begins with `->` in its content is a link."""
    with tarfile.open(fileobj=io.BytesIO(image)) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    change(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def layer_of(files: dict[str, bytes]) -> str:
    return str(json.loads(files["manifest.json"])[0]["Layers"][-1])


def config_of(files: dict[str, bytes]) -> str:
    return str(json.loads(files["manifest.json"])[0]["Config"])


def other_layer(files: dict[str, bytes]) -> None:
    files[layer_of(files)] = files[layer_of(files)][:-1] + b"x"


def other_config(files: dict[str, bytes]) -> None:
    files[config_of(files)] += b" "


def leads_out(files: dict[str, bytes]) -> None:
    files["../../outside"] = b"x"


def two_images(files: dict[str, bytes]) -> None:
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) * 2).encode()


def names_outside(files: dict[str, bytes]) -> None:
    told = json.loads(files["manifest.json"])
    told[0]["Layers"][-1] = "../../../etc/passwd"
    files["manifest.json"] = json.dumps(told).encode()


def rewritten(files: dict[str, bytes], **changes: object) -> None:
    """Another description, under the name that its digest gives."""
    told = json.loads(files["manifest.json"])
    config = json.loads(files.pop(told[0]["Config"]))
    raw = json.dumps({**config, **changes}).encode()
    told[0]["Config"] = hashlib.sha256(raw).hexdigest() + ".json"
    files[told[0]["Config"]] = raw
    files["manifest.json"] = json.dumps(told).encode()


def other_processor(files: dict[str, bytes]) -> None:
    rewritten(files, architecture="s390x")


def bomb(files: dict[str, bytes]) -> None:
    """A small layer that is large when it is unpacked."""
    files[layer_of(files)] = gzip.compress(b"\0" * 2**24)


BAD: dict[str, tuple[Change, str]] = {
    "other-layer": (other_layer, "a layer is not the one that its digest names"),
    "other-config": (other_config, "description is not the one that its digest names"),
    "leads-out": (leads_out, "leads out"),
    "two-images": (two_images, "holds 2 images"),
    "names-outside": (names_outside, "leads out"),
    "other-processor": (other_processor, "The image is for linux/s390x"),
    "other-size": (bomb, "a layer is not the one that its digest names"),
}


def test_a_bad_image_is_refused_with_one_clear_message_and_nothing_is_changed(
    server: Host, admin: Client, images: dict[str, bytes], app: str
) -> None:
    one = images["one"]
    wrong = {name: (edited(one, change), told) for name, (change, told) in BAD.items()}
    for cut in (700, 40_000, len(one) // 2, len(one) - 1100):
        wrong[f"cut at {cut}"] = one[:cut], "cut off"
    before = server.sh(f"find /var/lib/shipit/apps/{app} /var/lib/shipit/images/{app} | sort", check=True).out
    for name, (sent, told) in wrong.items():
        refused = admin.ssh(f"deploy {app} -", input=sent)
        lines = [line for line in refused.err.splitlines() if " !     " in line]
        assert refused.code == 2 and told in lines[0], f"{name}: {refused}"
        assert any("Nothing was received" in line for line in lines) and "Traceback" not in refused.err, name
    after = server.sh(f"find /var/lib/shipit/apps/{app} /var/lib/shipit/images/{app} | sort", check=True).out
    assert after == before and live(admin, app) == "v1"


def test_without_podman_the_administrator_is_told_what_to_install(
    server: Host, admin: Client, images: dict[str, bytes]
) -> None:
    say(admin, "apps:create", "nopodman", check=True)
    server.sh("mv /usr/bin/podman /usr/bin/podman.away", check=True)
    try:
        told = admin.ssh("deploy nopodman -", input=images["one"])
    finally:
        server.sh("mv /usr/bin/podman.away /usr/bin/podman", check=True)
    assert told.code != 0 and "no podman" in told.err and "apt install" in told.err, str(told)


def test_with_podman_5_one_image_follows_another(tmp_path: Path) -> None:
    with server_with_podman("images-trixie", "trixie") as host:
        admin = Client(host, tmp_path, key=snapshot.admin_key())
        say(admin, "apps:create", "shop", check=True)
        for mark, port in (("one", 80), ("two", 81)):
            build(host, f"web:{mark}", mark, f"ENV FIXED={port}", f"EXPOSE {port}")
            sent = admin.ssh("deploy shop -", input=saved(host, f"web:{mark}"))
            assert sent.code == 0 and admin.get("shop").body.strip() == mark, str(sent)
        assert say(admin, "run", "shop", "echo $MARK; exit 7").code == 7
        back = say(admin, "rollback", "shop")
        assert back.code == 0 and admin.get("shop").body.strip() == "one", str(back)
