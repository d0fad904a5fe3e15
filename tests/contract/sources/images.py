"""Container images for tests, made on the machine under test by the real tools: busybox, podman."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lab import snapshot, tree
from lab.host import Host

from receiver.system.apt import PODMAN

# Tells what it finds; says when it is told to end, and takes a second for it.
SERVE = """\
#!/bin/sh
mkdir -p /tmp/www
echo "$MARK" > /tmp/www/index.html
{ echo "uid=$(id -u)"; echo "release=$SHIPIT_RELEASE $SHIPIT_PROCESS"; echo "word=$WORD"; echo "pem=$PEM"; echo "tmpdir=$TMPDIR"; cat /proc/self/uid_map; } > /tmp/www/seen
{ cat /proc/self/status; touch /bin/written && echo wrote; ls /var/lib/shipit 2>&1; } >> /tmp/www/seen
trap 'echo told to end; kill $server; echo ended well; exit 0' TERM
httpd -f -p ${FIXED:-$PORT} -h /tmp/www &
server=$!
echo "serves $MARK"
wait
"""
# With a directory of the image as its root and another place as its working directory, a shell walks up and out of a
# chroot(2): busybox keeps the latter where nsenter changes only the root.
CLIMB = "".join(
    (
        "mkdir -p /trap/bin && cp /bin/busybox /trap/bin/sh && cd / && busybox nsenter -r/trap /bin/sh -c '",
        "for up in 1 2 3 4 5 6 7 8 9; do cd -P ..; done; ",
        "for tool in var/lib/shipit/images/*/overlay/*/diff/tool; do echo reaches $tool; echo echo STAYS > $tool; done'; true",
    )
)
BUILDER = "builder"
PLACE = "/mnt/plain/build"


@contextmanager
def server_with_podman(name: str, suite: str = tree.SUITE, *, podman: bool = True) -> Iterator[Host]:
    """A server that runs container images: a disk that is no overlay and, with `podman`, what shipit would install."""
    packages = f"{' '.join(PODMAN)} busybox-static" if podman else "busybox-static"
    with Host.boot(snapshot.installed_tree(suite), name) as host:
        host.sh(
            f"""
            install -d -m 755 /mnt/plain/images /var/lib/shipit/images
            echo '/mnt/plain/images /var/lib/shipit/images none bind 0 0' >> /etc/fstab
            mount /var/lib/shipit/images
            export DEBIAN_FRONTEND=noninteractive
            apt-get -q update
            apt-get -q -y --no-install-recommends install {packages}
            useradd --system {BUILDER}
            install -d -o {BUILDER} {PLACE} {PLACE}/root/bin
            cp /bin/busybox {PLACE}/root/bin/busybox
            for tool in sh cat echo env httpd id kill ls mkdir nc sleep touch wget; do ln -s busybox {PLACE}/root/bin/$tool; done
            """,
            check=True,
        )
        host.keep_archives()
        host.write(f"{PLACE}/root/serve", SERVE)
        yield host


def podman(host: Host, words: str) -> str:
    """What podman prints; as a user of its own, who has nothing to do with shipit."""
    env = f"HOME={PLACE} XDG_RUNTIME_DIR={PLACE} TMPDIR={PLACE}"
    store = f"--root {PLACE}/store --runroot {PLACE}/run --tmpdir {PLACE}/tmp --log-level fatal"
    setpriv = f"setpriv --reuid {BUILDER} --regid {BUILDER} --clear-groups"
    return host.sh(f"cd {PLACE} && {setpriv} env {env} podman {store} {words}", check=True).out


def build(
    host: Host, tag: str, mark: str, *lines: str, env: Mapping[str, str] | None = None, base: str = "scratch", copy: str = "root /"
) -> str:  # fmt: skip
    """Build an image whose web answers with `mark`; returns its id."""
    text = [f"FROM {base}", f"COPY {copy}", f"ENV MARK={json.dumps(mark)}", 'CMD ["/bin/sh", "/serve"]', *lines]
    text += [f"ENV {key}={value}" for key, value in (env or {}).items()]
    host.write(f"{PLACE}/Dockerfile", "\n".join(text) + "\n")
    return podman(host, f"build -q -t {shlex.quote(tag)} .").split()[-1]


def saved(host: Host, tag: str, form: str = "docker-archive") -> bytes:
    """The image as `podman save` writes it."""
    name = f"{PLACE}/saved.tar"
    podman(host, f"save -q --format {form} -o {name} {shlex.quote(tag)}")
    path = host.directory / "plain/build/saved.tar"
    content = path.read_bytes()
    path.unlink()
    return content
