"""Container images as releases, on one server with podman, from outside: docker save IMG | ssh HOST deploy APP -"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from host.apps import asked, live, newest, say, until_body, unwell
from host.test_across import given
from host.test_laptop import shipit
from lab import snapshot
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host
from security.test_images import entry

from contract.sources.bad_images import BAD, CLIMBS, edited, hostile, under
from contract.sources.images import CLIMB, PLACE, SERVE, build, podman, saved, server_with_podman
from receiver.client.image import without
from receiver.sources.image_archive import opened

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.xdist_group("images")]


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
        'LABEL shipit.yml="{processes: {worker: {count: 1}, web: {drain: 20}}, storage: [uploads, db.sqlite3]}"',
        "WORKDIR /srv", "ENV FIXED=80", "EXPOSE 80 9000/udp",
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
    both = {("web.1", "running"), ("worker.1", "running")}
    wait_for(
        "both, and the old ones to be gone",
        lambda: {(row["process"], row["state"]) for row in asked(admin, "ps", app)} == both,
    )
    ran = say(admin, "run", app, "echo $MARK; id -u; exit 7")
    assert (ran.code, ran.out) == (7, "two\n0\n"), str(ran)
    assert say(admin, "run", app, "cat", input="through\n").out == "through\n"
    assert say(admin, "run", app, "echo kept > /srv/uploads/file; echo too > db.sqlite3").code == 0
    assert (
        server.sh(f"cd /var/lib/shipit/apps/{app}/data; cat uploads/file db.sqlite3", check=True).out == "kept\ntoo\n"
    )
    assert "serves two" in say(admin, "logs", app, "-n", "50").out
    # What is replaced is told to end, and has its time for it.
    assert "ended well" in say(admin, "logs", app, "-n", "200").out
    assert say(admin, "ps:scale", app, "web=2").code == 0
    webs = ["web.1", "web.2"]
    wait_for("two", lambda: [p["process"] for p in asked(admin, "ps", app) if "web" in p["process"]] == webs)
    again = say(admin, "deploy", app)
    assert again.code == 0 and admin.get(app).body.strip() == "two", str(again)


def test_an_image_that_is_given_back_and_sent_again_is_the_same_image(
    server: Host, admin: Client, images: dict[str, bytes], app: str
) -> None:
    """Of docker's form (v1) and of OCI's (v2)."""
    assert admin.ssh(f"deploy {app} -", input=images["two"]).code == 0
    other = f"again-{app}"
    say(admin, "apps:create", other, check=True)
    for release, body in (("v1", "one"), ("v2", "two")):
        sent = admin.ssh(f"deploy {other} -", input=given(admin, app, release))
        assert sent.code == 0 and admin.get(other).body.strip() == body, str(sent)
        slugs = [f"/var/lib/shipit/apps/{name}/slugs/{release}/shipit-image.stored.json" for name in (app, other)]
        first, second = (json.loads(server.sh(f"cat {slug}", check=True).out) for slug in slugs)
        assert first == second, f"{release}: the same id, the same layers"
    assert asked(admin, "ps", other) and live(admin, app) == "v2"


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


def test_what_a_layer_holds_stays_in_the_image_or_is_refused(
    server: Host, admin: Client, images: dict[str, bytes], app: str
) -> None:
    server.sh("ln -f /etc/hostname /mnt/plain/witness 2>/dev/null || cp /etc/hostname /mnt/plain/witness", check=True)
    for name, entries in CLIMBS.items():
        sent = admin.ssh(f"deploy {app} -", input=under(images["one"], hostile(*entries)))
        assert sent.code in (0, 1, 2) and "Traceback" not in sent.err, f"{name}: {sent}"
        assert admin.get(app).body.strip() == "one", name
        outside = server.sh(
            "ls /mnt/evil; cmp /etc/hostname /mnt/plain/witness; ls -d /etc/passwd /mnt/plain", check=False
        )
        assert outside.out == "/etc/passwd\n/mnt/plain\n", f"{name}: {outside}"
    device, disk, root = entry("kmem", tarfile.CHRTYPE), entry("sda", tarfile.BLKTYPE), entry("root-shell")
    device.devmajor, device.devminor, disk.devmajor, disk.devminor, root.mode = 1, 2, 254, 0, 0o6755
    whiteouts = [entry("bin/.wh.nc"), entry("home/.wh..wh..opq")]
    # As of an image with a USER, who alone may read it.
    own = entry("owned-by-a-user")
    own.uid = own.gid = 1000
    own.mode = 0o600
    sent = admin.ssh(f"deploy {app} -", input=under(images["one"], hostile(device, disk, root, own, *whiteouts)))
    assert sent.code == 0 and admin.get(app).body.strip() == "one", str(sent)
    # What podman makes of them: no device that opens, and a bit that does nothing (NoNewPrivileges).
    seen = say(
        admin, "run", app, "cat /kmem /sda | wc -c; ls /bin/nc; cat /owned*; echo; grep NoNewPrivs /proc/self/status"
    )
    assert seen.out.split() == ["0", "owned-by-a-user", "NoNewPrivs:", "1"], str(seen)


@pytest.fixture(scope="module")
def registry(server: Host) -> str:
    """Debian's docker-registry on the server itself, for `ann` alone."""
    server.sh(
        """
        DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install docker-registry
        python3 -c 'import crypt; print("ann:" + crypt.crypt("geheim", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=2**5)))' \
            > /etc/docker/registry/passwords
        printf '%s\n' 'version: 0.1' 'storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}' \
            'http: {addr: "127.0.0.1:5000"}' 'auth: {htpasswd: {realm: lab, path: /etc/docker/registry/passwords}}' \
            > /etc/docker/registry/config.yml
        chmod 644 /etc/docker/registry/*
        systemctl restart docker-registry
        """,
        check=True,
    )
    listens = "exec 3<>/dev/tcp/127.0.0.1/5000"
    wait_for("the registry", lambda: server.sh(listens, check=False).code == 0, timeout=60)
    return "localhost:5000"


def test_an_image_comes_from_a_registry_by_the_digest_that_its_tag_has(
    server: Host, admin: Client, registry: str
) -> None:
    ref = f"{registry}/team/web:1"

    def published(mark: str) -> None:
        build(server, ref, mark)
        podman(server, f"push -q --tls-verify=false --creds ann:geheim {ref}")

    published("one")
    say(admin, "apps:create", "pulled", check=True)
    refused = say(admin, "deploy", "pulled", "--image", ref)
    assert refused.code == 77 and "registry:login" in refused.err, str(refused)
    say(admin, "registry:login", "pulled", registry, "ann", input="geheim\n", check=True)
    assert server.sh("grep -rl geheim /var/lib/shipit | xargs stat -c '%U %a'", check=True).out == "shipit 600\n"
    first = say(admin, "deploy", "pulled", "--image", ref)
    assert first.code == 0 and admin.get("pulled").body.strip() == "one", str(first)
    told = asked(admin, "releases:info", "pulled", "v1")["branch"]
    digest = told.partition("@")[2]
    assert told.startswith(f"{ref}@sha256:") and digest in first.err, told
    published("two")
    again = say(admin, "git:from-image", "pulled", ref)
    assert again.code == 0 and "0.0 MiB fetched" in again.err, "what the releases have is not fetched again"
    assert admin.get("pulled").body.strip() == "two"
    by_digest = say(admin, "deploy", "pulled", "--image", f"{registry}/team/web@{digest}")
    assert by_digest.code == 0 and admin.get("pulled").body.strip() == "one", str(by_digest)
    other = say(admin, "deploy", "pulled", "--image", ref, "--sha256", "0" * 64)
    assert other.code != 0 and live(admin, "pulled") == "v3", str(other)
    for name in ("../web", f"{registry}/team/web:nosuch", "localhost:1/team/web"):
        no = say(admin, "deploy", "pulled", "--image", name)
        assert no.code in (2, 71) and "Traceback" not in no.err, str(no)
    say(admin, "registry:logout", "pulled", registry, check=True)
    assert say(admin, "deploy", "pulled", "--image", ref).code == 77


def test_a_dockerfile_builds_on_a_private_image_and_no_step_sees_the_password(
    server: Host, admin: Client, registry: str
) -> None:
    build(server, f"{registry}/team/base:1", "base")
    podman(server, f"push -q --tls-verify=false --creds ann:geheim {registry}/team/base:1")
    say(admin, "apps:create", "private", check=True)
    look = "(env; cat /proc/*/environ; cat /run/credentials/*/*; cat /var/tmp/*/auth.json /tmp/*/auth.json) 2>/dev/null"
    repo = admin.repo("private", {"Dockerfile": f"FROM {registry}/team/base:1\nRUN {look} > /seen; echo looked\n"})
    # The server has a login, and nobody has said that this app may use it.
    say(admin, "registry:login", "--global", registry, "ann", input="geheim\n", check=True)
    refused = repo.push()
    assert not refused.ok and f"registry:login APP {registry} USER" in refused.remote, str(refused)
    assert f"registry:allow private {registry}" in refused.remote, str(refused)
    say(admin, "registry:allow", "private", registry, check=True)
    pushed = repo.push()
    assert pushed.ok and admin.get("private").body.strip() == "base", str(pushed)
    seen = say(admin, "run", "private", "cat /seen").out
    assert "PATH=" in seen and not any(word in seen for word in ("geheim", "YW5uOmdlaGVpbQ", "REGISTRIES")), seen
    left = server.sh(
        "grep -rlE 'geheim|YW5uOmdlaGVpbQ' /var/lib/shipit /run /var/tmp | xargs -r stat -c '%U %a'", check=False
    )
    assert set(left.out.splitlines()) == {"shipit 600"}, str(left)
    say(admin, "registry:logout", "private", registry, check=True)
    again = say(admin, "deploy", "private", "--fresh")
    say(admin, "registry:logout", "--global", registry, check=True)
    assert again.code == 1 and admin.get("private").body.strip() == "base", str(again)


def test_from_a_laptop_only_the_layers_travel_that_the_server_lacks(
    server: Host, admin: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Real archives of podman's; a program of its name in front of them, since this machine need not have it.
    build(server, "laptop:base", "base")
    for mark in ("one", "two", "three"):
        # The last one is large, so its layer travels on its own.
        server.sh(f"head -c {5 * 2**20 if mark == 'three' else 9} /dev/urandom > {PLACE}/only", check=True)
        build(server, f"laptop:{mark}", mark, base="localhost/laptop:base", copy="only /")
        (tmp_path / mark).write_bytes(saved(server, f"laptop:{mark}"))
    engine = tmp_path / "bin/podman"
    engine.parent.mkdir()
    engine.write_text(
        f'#!/bin/sh\ncase $1 in image) test -e {tmp_path}/${{4#*:}};; save) cp {tmp_path}/${{6#*:}} "$4";; esac\n'
    )
    engine.chmod(0o755)
    environment = {**admin.environment, "PATH": f"{engine.parent}:{os.environ['PATH']}"}
    monkeypatch.setattr(Client, "environment", environment)
    say(admin, "apps:create", "laptop", check=True)
    first = shipit(admin, "--remote", f"shipit@{server.ip}:laptop", "deploy", "--image", "laptop:one")
    assert "2 of 2 layers" in first.err and admin.get("laptop").body.strip() == "one", str(first)
    second = shipit(admin, "--remote", f"shipit@{server.ip}:laptop", "deploy", "--image", "laptop:two")
    assert "0.0 MiB: 1 of 2 layers" in second.err and admin.get("laptop").body.strip() == "two", str(second)
    assert say(admin, "rollback", "laptop").code == 0 and admin.get("laptop").body.strip() == "one"
    # What it leaves out counts for nothing where the server has it not.
    say(admin, "apps:create", "other", check=True)
    with (tmp_path / "three").open("rb") as file, (tmp_path / "part").open("wb") as out:
        layers = frozenset(say(admin, "images:layers", "laptop", check=True).out.split())
        assert without(opened(file), layers, out, tmp_path) == (1, 2)
    part = (tmp_path / "part").read_bytes()
    refused = admin.ssh("deploy other -", input=part)
    assert refused.code == 2 and "leaves out 1 of 2 layers, which the server has not" in refused.err, str(refused)
    cut = admin.ssh("deploy laptop -", input=part[: len(part) // 2])
    assert cut.code == 2 and admin.get("laptop").body.strip() == "one", str(cut)
    # A layer that arrived whole before the transfer was cut off is not sent again.
    large: list[tuple[str, bytes]] = []

    def ahead(digest: str, size: int, file: IO[bytes]) -> bool:
        large.append((digest, file.read()))
        return True

    with (tmp_path / "three").open("rb") as file:
        assert without(opened(file), layers, io.BytesIO(), tmp_path, ahead) == (1, 2)
    [(digest, content)] = large
    cut = admin.ssh(f"images:add laptop {digest}", input=content[:-1000])
    assert cut.code == 2 and "cut off" in cut.err, str(cut)
    assert digest not in say(admin, "images:layers", "laptop", check=True).out
    assert admin.ssh(f"images:add laptop {digest}", input=content).code == 0
    third = shipit(admin, "--remote", f"shipit@{server.ip}:laptop", "deploy", "--image", "laptop:three")
    assert "0.0 MiB: 0 of 2 layers" in third.err and "Sending the layer" not in third.err, str(third)
    assert admin.get("laptop").body.strip() == "three" and digest not in say(admin, "images:layers", "laptop").out
    whole = shipit(admin, "--remote", f"shipit@{server.ip}:other", "deploy", "--image", "laptop:three")
    assert f"Sending the layer {digest[:19]}, 5.0 MiB" in whole.err and "2 of 2 layers" in whole.err, str(whole)
    assert admin.get("other").body.strip() == "three"


def test_podman_comes_with_the_first_image_of_an_administrator_and_one_image_follows_another(tmp_path: Path) -> None:
    with server_with_podman("images-trixie", "trixie", podman=False) as host:
        admin, ci = Client(host, tmp_path / "admin", key=snapshot.admin_key()), Client(host, tmp_path / "ci")
        say(admin, "ssh-keys:add", "ci", input=ci.public_key + "\n", check=True)
        lines = ["FROM scratch", "COPY root /", "RUN chown 7:7 /serve; echo clean > /tool", f"RUN {CLIMB}"]
        lines += ["ENV MARK=built FIXED=80", "EXPOSE 80", "HEALTHCHECK CMD echo well > /tmp/www/checked"]
        files = {"Dockerfile": "\n".join([*lines, 'CMD ["/bin/sh", "/serve"]', ""]), "root/serve": SERVE}
        busybox = (host.directory / "plain/build/root/bin/busybox").read_bytes()
        made, other = (who.repo("made", {**files, "root/bin/sh": busybox}) for who in (admin, ci))
        for tree in (made, other):
            for tool in (
                "mkdir",
                "echo",
                "id",
                "cat",
                "touch",
                "ls",
                "sleep",
                "httpd",
                "kill",
                "chown",
                "cp",
                "busybox",
                "true",
            ):
                (tree.path / "root/bin" / tool).symlink_to("sh")
            (tree.path / "root/bin/sh").chmod(0o755)
            tree.commit()
        say(admin, "apps:create", "made", check=True)

        def refused(who: Repo, *told: str) -> None:
            pushed = who.push()
            assert not pushed.ok and all(line in pushed.remote for line in told), str(pushed)
            host.sh("! command -v podman")

        refused(
            other,
            "no podman",
            "The key ci may not have it installed",
            "An administrator types, once:",
            "containers:setup",
        )
        pulled = say(ci, "deploy", "made", "--image", "localhost:1/team/web")
        assert pulled.code == 77 and "containers:setup" in pulled.err, str(pulled)
        host.sh("echo 'containers: false' >> /etc/shipit/shipit.yml")
        refused(made, "shipit installs none (containers)", "apt install --no-install-recommends podman crun")
        said = say(admin, "containers:setup")
        assert said.code != 0 and "does not install podman (containers)" in said.err, str(said)
        host.sh("sed -i /^containers/d /etc/shipit/shipit.yml; mkdir /away; mv /etc/apt/sources.list* /away")
        refused(
            made,
            "was not installed: apt ended with 100",
            "apt install --no-install-recommends podman",
            "Then the same again",
        )
        host.sh("mv /away/* /etc/apt/")
        pushed = made.push()
        assert pushed.ok and admin.get("made").body.strip() == "built", str(pushed)
        assert admin.get("made", "/checked").body.strip() == "well", "its HEALTHCHECK"
        assert host.sh("cat /var/lib/shipit/images/made.build/overlay/*/diff/tool").out == "clean\n", (
            "each step its layer"
        )
        assert "Installing podman on the server (apt), once" in pushed.remote, str(pushed)
        assert re.search(r"Installed podman 5\.\S+ in \d+ s", pushed.remote), str(pushed)
        # Whoever deploys may from now on.
        say(admin, "apps:create", "shop", check=True)
        for mark, port in (("one", 80), ("two", 81)):
            build(host, f"web:{mark}", mark, f"ENV FIXED={port}", f"EXPOSE {port}")
            sent = ci.ssh("deploy shop -", input=saved(host, f"web:{mark}"))
            assert sent.code == 0 and admin.get("shop").body.strip() == mark, str(sent)
        assert say(admin, "run", "shop", "echo $MARK; exit 7").code == 7
        back = say(admin, "rollback", "shop")
        assert back.code == 0 and admin.get("shop").body.strip() == "one", str(back)
