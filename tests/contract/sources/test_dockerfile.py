"""A Dockerfile in a pushed tree: built on the server, run as any image, its layers kept from push to push."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from host.apps import live, say
from lab import snapshot
from lab.base import Result
from lab.client import Client, Repo
from lab.host import Host

from contract.sources.images import CLIMB, build, saved, server_with_podman

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.xdist_group("dockerfile")]

# `COPY --chown`, chown(1), a set-uid program and a USER: what images of Debian's do.
DOCKERFILE = """\
FROM oci-archive:base.tar AS tools
RUN echo "long work $(date +%s%N)" > /made && cat /made

FROM tools
ARG WORD
ENV MARK=$WORD
COPY --chown=7:7 conf/ /etc/app/
RUN mkdir -p /srv/app && chown -R 5:5 /srv/app && chmod 4755 /srv/app && cp /bin/busybox /srv/su && chmod u+s /srv/su
RUN cat /proc/self/uid_map > /built-as
COPY text /text
EXPOSE 8000
HEALTHCHECK --interval=1s --retries=5 CMD wget -q -O /tmp/www/checked http://127.0.0.1:8000/ && test "$WORD" = first
USER 5:5
ENV FIXED=8000
CMD ["/bin/sh", "/serve"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Host]:
    with server_with_podman("dockerfile", podman=False) as host:
        yield host


@pytest.fixture(scope="module")
def admin(server: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server, tmp_path_factory.mktemp("admin"), key=snapshot.admin_key())


@pytest.fixture(scope="module")
def setup(server: Host, admin: Client) -> Result:
    return say(admin, "containers:setup", check=True)


@pytest.fixture(scope="module")
def base(server: Host, setup: Result) -> bytes:
    build(server, "base:1", "base")
    return saved(server, "base:1", "oci-archive")


@pytest.fixture(scope="module")
def shop(server: Host, admin: Client, base: bytes) -> Repo:
    """An app whose live release was built from its Dockerfile."""
    say(admin, "apps:create", "shop", check=True)
    say(admin, "config:set", "shop", "WORD=first", check=True)
    repo = admin.repo("shop", {"Dockerfile": DOCKERFILE, "text": "one", "conf/a": "x", "base.tar": base})
    repo.commit({"shipit.yml": "build: {config: [WORD]}\n"})
    pushed = repo.push()
    assert pushed.ok, pushed
    assert "built as a container image, because nothing else here says how the app runs" in pushed.remote
    return repo


def test_one_command_has_podman_installed_and_nothing_of_it_that_runs_by_itself(
    server: Host, admin: Client, setup: Result
) -> None:
    assert "Installing podman on the server (apt)" in setup.err and "Installed podman 4" in setup.err, str(setup)
    assert setup.out == "This server runs container images.\n"
    running = server.sh("systemctl is-active podman.socket podman.service podman-auto-update.timer", check=False)
    assert not {"active", "activating"} & {*running.out.split()}, str(running)
    assert "podman" not in server.sh("ls /etc/systemd/system/*.wants").out, "and nothing of it does after a reboot"
    again = say(admin, "containers:setup", check=True)
    assert again.out.startswith("podman is there") and "Installing" not in again.err, str(again)


def test_a_dockerfile_is_built_and_its_layers_are_found_again(server: Host, admin: Client, shop: Repo) -> None:
    assert admin.get("shop").body.strip() == "first"
    first = say(admin, "run", "shop", "cat /made; stat -c %a /srv/app /srv/su; cat /built-as /etc/app/a").out
    assert admin.get("shop", "/checked").body.strip() == "first", "the image's own check ran in the container"
    made, *modes, built_as, _ = first.splitlines()
    assert made.startswith("long work") and modes == ["4755", "4755"], first
    assert built_as.split() == ["0", server.sh("id -u build-shop", check=True).out.strip(), "1"], "nobody outside"
    shop.commit({"text": "two"})
    with admin.load("shop") as load:
        assert shop.push().ok
        assert say(admin, "ps:scale", "shop", "web=2").code == 0
    assert load.stop().failed == 0, load.stop()
    assert say(admin, "run", "shop", "cat /text /made").out == f"two{made}\n", "only what changed was made again"
    assert say(admin, "deploy", "shop").code == 0
    assert admin.get("shop").body.strip() == "first"


def test_a_build_sees_nothing_of_the_app_that_runs(server: Host, admin: Client, shop: Repo) -> None:
    say(admin, "config:set", "shop", "PASSWORD=geheim", check=True)
    look = "for p in /proc/[0-9]*; do cat $p/environ; done 2>/dev/null | grep -c geheim; ls /data /var/lib/shipit; kill -9 -1"
    server.sh("echo kept > /var/lib/shipit/apps/shop/data/kept", check=True)
    shop.commit({"Dockerfile": DOCKERFILE.replace("COPY text", f"RUN ({look}); true\nCOPY text")})
    pushed = shop.push()
    assert "kept" not in pushed.remote.partition("STEP 7")[2] and "\n0\n" in pushed.remote.replace(" ", ""), pushed
    unit = f"shipit-shop-web-{live(admin, 'shop')}@1.service"
    assert server.sh(f"systemctl show -P NRestarts {unit}", check=True).out == "0\n", "nothing of it was killed"
    assert admin.get("shop").body.strip() == "first"


def test_what_a_step_writes_is_gone_with_its_line(server: Host, admin: Client, base: bytes) -> None:
    say(admin, "apps:create", "victim", check=True)
    tool = "FROM oci-archive:base.tar\nRUN echo 'echo clean' > /tool\n"
    end = 'EXPOSE 80\nENV FIXED=80\nCMD ["/bin/sh", "/serve"]\n'
    repo = admin.repo("victim", {"Dockerfile": f"{tool}RUN {CLIMB}\n{end}", "base.tar": base})
    hostile = repo.push()
    assert hostile.ok and "-->" in hostile.remote, str(hostile)
    found = server.sh("cat /var/lib/shipit/images/victim.build/overlay/*/diff/tool", check=True).out
    assert set(found.split("\n")) == {"echo clean", ""}, f"{found}\n{hostile}"
    repo.commit({"Dockerfile": f"{tool}RUN sh /tool > /made\n{end}"})
    pushed = repo.push()
    assert pushed.ok and "Using cache" in pushed.remote, str(pushed)
    assert say(admin, "run", "victim", "cat /made").out == "clean\n"


def test_what_does_not_build_changes_nothing_and_the_way_back_to_git_is_a_rollback(admin: Client, shop: Repo) -> None:
    before = live(admin, "shop")
    shop.commit({"Dockerfile": DOCKERFILE.replace("COPY text", "RUN echo sorry && exit 3\nCOPY text")})
    refused = shop.push()
    assert not refused.ok and "sorry" in refused.remote and live(admin, "shop") == before, refused
    unwell = DOCKERFILE.replace('test "$WORD" = first', "{ echo not well; false; }").replace("retries=5", "retries=4")
    shop.commit({"Dockerfile": unwell})
    refused = shop.push()
    assert not refused.ok and live(admin, "shop") == before, str(refused)
    assert "the image's HEALTHCHECK ends with 1: not well" in refused.remote, str(refused)
    # What the app says counts instead.
    shop.commit(
        {
            "Dockerfile": unwell,
            "shipit.yml": "build: {config: [WORD]}\nprocesses: {web: {healthcheck: {path: /, status: 200}}}\n",
        }
    )
    taken = shop.push()
    assert taken.ok and admin.get("shop").body.strip() == "first", str(taken)
    before = live(admin, "shop")
    plain = {
        "Dockerfile": DOCKERFILE,
        "Procfile": "web: python3 -m http.server --bind 127.0.0.1 $PORT\n",
        "text": "plain",
    }
    shop.commit({**plain, "index.html": "plain"})
    pushed = shop.push()
    assert pushed.ok and "Dockerfile: not used" in pushed.remote, pushed
    assert admin.get("shop").body == "plain"
    number = live(admin, "shop")
    assert say(admin, "rollback", "shop", before).code == 0 and admin.get("shop").body.strip() == "first"
    assert say(admin, "rollback", "shop", number).code == 0 and admin.get("shop").body == "plain"
