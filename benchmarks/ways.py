"""The ways to ship one app, each twice: the best short script that people write for it, and shipit.

Every text here is run as it stands, by bash, in the app's working copy. `server` is the script's machine, `prod` shipit's,
`forge` one that keeps repositories. `{app}` is the way's name, `{port}` its app's port, `{n}` the number of the version.
"""

from __future__ import annotations

from dataclasses import dataclass

# What a person types on a bare server, once. A unit or a site that is written counts as one command.
PREPARED = (
    "apt-get -q -y update",
    "apt-get -q -y install --no-install-recommends git nginx python3 python3-venv rsync sudo",
    "useradd --create-home --shell /bin/bash deploy",
    "install -d -m 0700 -o deploy -g deploy /home/deploy/.ssh",
    "install -m 0600 -o deploy -g deploy /root/.ssh/authorized_keys /home/deploy/.ssh/authorized_keys",
    "echo 'deploy ALL=(root) NOPASSWD: ALL' > /etc/sudoers.d/deploy",
    "rm -f /etc/nginx/sites-enabled/default",
    "systemctl enable --now nginx",
)
UNIT = """\
cat > /etc/systemd/system/{app}.service <<'EOF'
[Service]
User={user}
WorkingDirectory=-/srv/{app}/src
Environment=PORT={port}
ExecStart={command}
Restart=always
[Install]
WantedBy=multi-user.target
EOF"""
SITE = """\
cat > /etc/nginx/sites-enabled/{app} <<'EOF'
server {{
    listen 80;
    server_name {host};
    location / {{
        proxy_pass http://127.0.0.1:{port};
        proxy_set_header Host $host;
    }}
}}
EOF"""
APP = (UNIT, SITE, "systemctl daemon-reload", "systemctl enable -q {app}", "systemctl reload nginx")
HOME = "install -d -o deploy -g deploy /srv/{app} /srv/{app}/src"
VENV = "sudo -u deploy python3 -m venv /srv/{app}/venv"
GUNICORN = "/srv/{app}/venv/bin/gunicorn --workers 2 --bind 127.0.0.1:{port} app:app"
PIP = "/srv/{app}/venv/bin/pip install -q --disable-pip-version-check"
RESTART = "sudo systemctl restart {app}"
PODMAN = "apt-get -q -y --no-install-recommends install podman crun catatonit slirp4netns"
# As root: the images that `sudo podman load` has loaded are root's.
RUN = "/usr/bin/podman run --rm --replace --name {app} --network host -e PORT={port} localhost/sample:live"
# Of these machines only: they are no real ones, so containers need a disk that is no overlay, and less of the kernel.
CONTAINERS = """\
install -d -m 755 /mnt/plain/store /mnt/plain/images /var/lib/shipit/images /etc/containers
mount --bind /mnt/plain/images /var/lib/shipit/images
cat > /etc/containers/storage.conf <<'EOF'
[storage]
driver = "overlay"
graphroot = "/mnt/plain/store"
runroot = "/run/containers/storage"
EOF
cat > /etc/containers/containers.conf <<'EOF'
[containers]
keyring = false
cgroups = "disabled"
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
EOF"""
HOOK = f"""\
cat > /srv/{{app}}/repo.git/hooks/post-receive <<'EOF'
#!/bin/sh -e
git --work-tree=/srv/{{app}}/src checkout -f main
{PIP} -r /srv/{{app}}/src/requirements.txt
{RESTART}
EOF"""


@dataclass(frozen=True)
class Side:
    """`once`: what is typed before the first time, on the machine as root (`laptop`: on the laptop). `ship`: from a
    changed line to live. `back`: to what was live before."""

    ship: str
    back: str
    once: tuple[str, ...] = ()
    laptop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Way:
    """`build`: what makes what is shipped; the same for both, and not timed. `command`: what the script's unit starts, as
    `user`. `lab`: what only a machine of the lab needs; nobody types it."""

    app: str
    title: str
    script: Side
    shipit: Side
    build: str = ""
    command: str = GUNICORN
    user: str = "deploy"
    lab: str = ""


def back(app: str) -> str:
    return f"ssh prod rollback {app}"


WAYS = (
    Way(
        "push", "git push",
        Side(
            "git push -q server:/srv/{app}/repo.git main",
            "git push -q -f server:/srv/{app}/repo.git main~1:main",
            once=(
                HOME, VENV, "sudo -u deploy git init -q --bare --initial-branch=main /srv/{app}/repo.git", HOOK,
                "chmod 755 /srv/{app}/repo.git/hooks/post-receive",
            ),
        ),
        Side("git push -q prod:{app} main", back("{app}")),
    ),
    Way(
        "pull", "git pull",
        Side(
            "git push -q -f forge:script.git main && ssh server 'cd /srv/{app}/src && git pull -q && "
            f"{PIP} -r requirements.txt && {RESTART}'",
            f"ssh server 'cd /srv/{{app}}/src && git reset -q --hard HEAD~1 && {PIP} -r requirements.txt && {RESTART}'",
            once=(
                HOME, VENV, "sudo -u deploy ssh-keygen -q -t ed25519 -N '' -f /home/deploy/.ssh/id_ed25519",
                "ssh-keyscan -t ed25519 {forge} > /etc/ssh/ssh_known_hosts",
                "KEY cat /home/deploy/.ssh/id_ed25519.pub",
                "sudo -u deploy git clone -q up@{forge}:script.git /srv/{app}/src",
            ),
        ),
        Side(
            "git push -q -f forge:shipit.git main && ssh prod git:sync {app} up@{forge}:shipit.git main", back("{app}"),
            laptop=(
                "ssh prod apps:create {app}", "KEY ssh prod git:generate-deploy-key {app}",
                "ssh prod git:allow-host {app} {forge}",
            ),
        ),
    ),
    Way(
        "rsync", "rsync",
        Side(
            f"rsync -az --delete --exclude .git ./ server:/srv/{{app}}/src/ && ssh server '{PIP} -r "
            f"/srv/{{app}}/src/requirements.txt && {RESTART}'",
            "git checkout -q HEAD~1 && rsync -az --delete --exclude .git ./ server:/srv/{app}/src/ && ssh server "
            f"'{PIP} -r /srv/{{app}}/src/requirements.txt && {RESTART}'; git checkout -q main",
            once=(HOME, VENV),
        ),
        Side("rsync -az --delete --exclude .git ./ prod:{app}/", back("{app}")),
    ),
    Way(
        "tarball", "a tarball",
        Side(
            "tar czf - --exclude .git . | ssh server 'set -e; d=/srv/{app}/releases/{n}; mkdir -p $d; tar xzf - -C $d; "
            f"{PIP} -r $d/requirements.txt; ln -sfn $d /srv/{{app}}/src; {RESTART}'",
            f"ssh server 'ln -sfn /srv/{{app}}/releases/{{before}} /srv/{{app}}/src && {RESTART}'",
            once=("install -d -o deploy -g deploy /srv/{app}", VENV),
        ),
        Side(
            "tar czf - --exclude .git . | ssh prod deploy {app} -", back("{app}"), laptop=("ssh prod apps:create {app}",)
        ),
    ),
    Way(
        "wheel", "a wheel",
        Side(
            f"scp -q {{out}}/{{wheel}} server:wheels/ && ssh server '{PIP} wheels/{{wheel}} && {RESTART}'",
            f"ssh server '{PIP} wheels/{{wheel_before}} && {RESTART}'",
            once=(HOME, VENV, "install -d -o deploy -g deploy /home/deploy/wheels"),
        ),
        Side(
            "ssh prod deploy {app} - < {out}/{wheel}", back("{app}"), laptop=("ssh prod apps:create {app}",)
        ),
        build="wheel", command="/srv/{app}/venv/bin/sample",
    ),
    Way(
        "deb", "a Debian package",
        Side(
            f"scp -q {{out}}/{{deb}} server:debs/ && ssh server 'sudo dpkg -i debs/{{deb}} && {RESTART}'",
            f"ssh server 'sudo dpkg -i debs/{{deb_before}} && {RESTART}'",
            once=("install -d -o deploy -g deploy /home/deploy/debs",),
        ),
        Side("ssh prod deploy {app} - < {out}/{deb}", back("{app}"), laptop=("ssh prod apps:create {app}",)),
        build="deb", command="/usr/lib/sample/start",
    ),
    Way(
        "image", "a container image",
        Side(
            "ssh server 'sudo podman load -q && sudo podman tag localhost/sample:{n} localhost/sample:live && "
            f"{RESTART}' < {{out}}/{{image}}",
            f"ssh server 'sudo podman tag localhost/sample:{{before}} localhost/sample:live && {RESTART}'",
            once=(PODMAN,),
        ),
        Side(
            "ssh prod deploy {app} - < {out}/{image}", back("{app}"), once=(PODMAN,), laptop=("ssh prod apps:create {app}",)
        ),
        build="image", command=RUN, user="root", lab=CONTAINERS,
    ),
)  # fmt: skip
