"""Every path shipit uses, as a property, so that none is spelled twice.

Owners (docs/decisions/0002-who-owns-which-directory.md): `apps/APP` and `slugs/` belong to root, so that nobody can put
a link in the agent's way there; `releases/` (the ledger) and `repo.git` belong to `shipit`; a slug to `build-APP`;
`data/` and the sockets to `app-APP`; `config/` to root alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from receiver.names import AppName, TypeName

# Fixed, because units, sshd's Match block and every key line name it; an upgrade moves the link.
PREFIX = Path("/usr/lib/shipit/current")
PYTHON = PREFIX / "bin/python"
LIBEXEC = PREFIX / "share/shipit/libexec"
# In a slug: an image that was just built, until the app's user has stored it (inside/image.py).
HANDED_IMAGE = "shipit-image.built"
# A build finds its registry logins under this name, beside its config vars; no config var can have it.
REGISTRIES = "SHIPIT_REGISTRIES"
LAUNCH, BUILDER, IMAGE, DISK, ACME, PARTS = (
    LIBEXEC / name for name in ("launch", "builder", "image", "disk", "acme", "parts")
)

# nginx's pools of kept connections to an app (ledger/pool.py).
POOLS = 3

SHIPIT_USER = "shipit"
# The user that requests certificates. It has no access to an app's files, or to a key that is in use.
ACME_USER = "shipit-acme"
PROXY_GROUP = "shipit-proxy"


def share(kind: str) -> Path:
    """The directory of `hooks`, `libexec` or `templates`: the clone's, or the installation's that this code is in.

    Below `current` where that is the same, because such paths are written down (nginx's error pages). Not by
    sys.prefix, which is another one without site (python -S).
    """
    here = Path(__file__).resolve()
    clone = here.parent.parent / kind
    if clone.is_dir():
        return clone
    own = here.parents[4]
    return (PREFIX if PREFIX.resolve() == own else own) / "share/shipit" / kind


def app_user(app: AppName) -> str:
    """The user that the processes of `app` run as; its primary group has the same name."""
    return f"app-{app}"


def build_user(app: AppName) -> str:
    """The user that builds `app` and owns its slugs; its primary group is `app-APP`."""
    return f"build-{app}"


# The name of ReleasePaths.public, for use below `current`.
PUBLIC = "public"


def web_count(count: int) -> str:
    """The name of ReleasePaths.web_count, for use below `current`."""
    return f"web.{count}"


def pool(index: int) -> str:
    """The name of ReleasePaths.pool, for use below `current`."""
    return f"pool.{index}"


# The names of ReleasePaths.assets and .older, likewise.
ASSETS = "assets"
OLDER = "older"

# The name of ReleasePaths.one, likewise.
ONE = "one"


@dataclass(frozen=True)
class Layout:
    """All paths below one root (`/`, or a temporary directory in tests)."""

    root: Path = Path("/")

    @property
    def etc(self) -> Path:
        return self.root / "etc/shipit"

    @property
    def settings(self) -> Path:
        return self.etc / "shipit.yml"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/shipit"

    @property
    def home(self) -> Path:
        """Home of the `shipit` user: ssh keys, and locks for all apps."""
        return self.state / "home"

    @property
    def authorized_keys(self) -> Path:
        return self.home / ".ssh/authorized_keys"

    @property
    def audit(self) -> Path:
        """The file of audit lines, if there is no journal (system/audit.py)."""
        return self.home / "audit.log"

    @property
    def keys(self) -> Path:
        """The named keys with role and apps (JSON); `authorized_keys` is derived from it."""
        return self.home / "keys.json"

    @property
    def provenance_key(self) -> Path:
        """The key that signs statements of provenance; its public half is beside it."""
        return self.home / "provenance-key"

    @property
    def apps(self) -> Path:
        return self.state / "apps"

    @property
    def images(self) -> Path:
        """Container images: a podman store for each app that has one."""
        return self.state / "images"

    @property
    def acme(self) -> Path:
        """Home of ACME_USER: its account at the certificate authority, and what certbot keeps."""
        return self.state / "acme"

    @property
    def challenges(self) -> Path:
        """What nginx serves to a certificate authority below /.well-known/acme-challenge/ of an app's names."""
        return self.state / "acme-challenges"

    @property
    def acme_account(self) -> Path:
        """For root only: the key id and the HMAC key of an external account (RFC 8555, 7.3.4), if the authority needs
        one."""
        return self.etc / "acme-eab"

    @property
    def acme_dns(self) -> Path:
        """For root only: the credentials of the DNS plugin that `acme_dns` of the settings names."""
        return self.etc / "acme-dns"

    @property
    def run(self) -> Path:
        return self.root / "run/shipit"

    @property
    def roots(self) -> Path:
        """Where only root writes, while the machine runs. Not below `run`, where each app has a directory of its
        name."""
        return self.root / "run/shipit-root"

    @property
    def ran(self) -> Path:
        """An empty file APP/vN for each slug that was built, compared or served since the machine started."""
        return self.roots / "ran"

    @property
    def agent_socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def hook_socket(self) -> Path:
        """The socket to which nginx passes webhooks."""
        return self.run / "hook.sock"

    @property
    def sessions(self) -> Path:
        """A directory for each key, with a locked file for each of its commands that runs."""
        return self.home / "sessions"

    @property
    def domains_lock(self) -> Path:
        """Held while a domain moves to another app: each domain has one app."""
        return self.home / "domains.lock"

    @property
    def builds(self) -> Path:
        """The tickets of the builds that run or wait, of all apps (ledger/tickets.py)."""
        return self.home / "builds"

    @property
    def log(self) -> Path:
        """Logs on a machine without systemd (with it, the journal has them)."""
        return self.root / "var/log/shipit"

    @property
    def nginx(self) -> Path:
        """One file an app, included by the proxy's own configuration."""
        return self.root / "etc/nginx/shipit"

    @property
    def units(self) -> Path:
        return self.root / "etc/systemd/system"

    @property
    def tmpfiles(self) -> Path:
        """One file an app: its socket directory, made at boot (tmpfiles.d(5))."""
        return self.root / "etc/tmpfiles.d"

    @property
    def supervisor(self) -> Path:
        return self.etc / "supervisor"

    def app(self, app: AppName) -> AppPaths:
        return AppPaths(self, app)


@dataclass(frozen=True)
class AppPaths:
    """The paths of one app."""

    layout: Layout
    name: AppName

    @property
    def dir(self) -> Path:
        return self.layout.apps / self.name

    @property
    def repo(self) -> Path:
        return self.dir / "repo.git"

    @property
    def releases(self) -> Path:
        return self.dir / "releases"

    @property
    def state(self) -> Path:
        """What is true of the app and not of one release: branch, domains, pins, lock (app.json)."""
        return self.releases / "app.json"

    @property
    def state_copy(self) -> Path:
        """A second copy of `state`, for when that is damaged."""
        return self.releases / "app.json.copy"

    @property
    def current(self) -> Path:
        """The commit point: a link to the live release's directory, replaced by one rename.

        nginx's upstreams name `current/sockets/web.N.sock`, so the commit *is* the switch.
        """
        return self.releases / "current"

    @property
    def maintenance(self) -> Path:
        """While this is there, nginx answers 503 with `maintenance_page` instead of asking the app; holds the message."""
        return self.releases / "maintenance"

    @property
    def maintenance_page(self) -> Path:
        """Stays after the maintenance: a request that began during it may still be answered with the page."""
        return self.releases / "maintenance.html"

    @property
    def passwords(self) -> Path:
        """The visitors who may see a guarded app: lines NAME:HASH, for nginx."""
        return self.releases / "passwords"

    @property
    def settled(self) -> Path:
        """A number: all releases up to it have their verdict. A shortcut, which may be missing (Ledger.settle)."""
        return self.releases / "settled"

    @property
    def snippet(self) -> Path:
        """The app's own lines for nginx (proxy/snippet.py)."""
        return self.releases / "nginx.json"

    @property
    def told_certificates(self) -> Path:
        """Which problems with certificates people were told of already (story/certificates.py)."""
        return self.releases / "told-certificates"

    @property
    def measured(self) -> Path:
        """The size of the app's data when it was last measured (story/storage.py)."""
        return self.releases / "measured.json"

    @property
    def measured_lock(self) -> Path:
        """Held while that is changed."""
        return self.releases / "measured.lock"

    @property
    def has_hook(self) -> Path:
        """An empty file; if it exists, nginx passes the app's webhook on (sources/pull/hook.py)."""
        return self.releases / "hook"

    @property
    def queue_lock(self) -> Path:
        """Held by the gateway of a change to the app; of waiting pushes the newest wins."""
        return self.releases / "queue.lock"

    @property
    def queue(self) -> Path:
        """The newest ticket that was drawn; a waiter with an older one was superseded."""
        return self.releases / "queue"

    @property
    def app_lock(self) -> Path:
        """Held by the worker that is changing the app; taken after `queue_lock`, never before."""
        return self.releases / "app.lock"

    @property
    def slugs(self) -> Path:
        return self.dir / "slugs"

    @property
    def config(self) -> Path:
        return self.dir / "config"

    @property
    def data(self) -> Path:
        return self.dir / "data"

    @property
    def cache(self) -> Path:
        return self.dir / "cache"

    @property
    def images(self) -> Path:
        """The app's container images, kept by podman as the app's own user; made with the first."""
        return self.layout.images / self.name

    @property
    def image_builds(self) -> Path:
        """podman's cache for images that are built here, of the build's user; no app's name has a dot."""
        return self.layout.images / f"{self.name}.build"

    @property
    def received_images(self) -> Path:
        """Image archives that were sent and are not stored yet: HEX.tar."""
        return self.releases / "images"

    @property
    def received_disks(self) -> Path:
        """A virtual machine's disk that was sent and is not live yet: HEX."""
        return self.releases / "disks"

    @property
    def runs(self) -> Path:
        """One-off commands: a file each, written by `shipit`, run by the agent by its id."""
        return self.releases / "runs"

    @property
    def sockets(self) -> Path:
        return self.layout.run / self.name

    @property
    def tls(self) -> Path:
        """The app's certificates and their keys (proxy/certificates.py)."""
        return self.dir / "tls"

    @property
    def vhost(self) -> Path:
        return self.layout.nginx / f"{self.name}.conf"

    def release(self, number: int) -> ReleasePaths:
        return ReleasePaths(self, number)


@dataclass(frozen=True)
class ReleasePaths:
    """The paths of one release."""

    app: AppPaths
    number: int

    @property
    def dir(self) -> Path:
        return self.app.releases / f"v{self.number}"

    @property
    def record(self) -> Path:
        return self.dir / "release.json"

    @property
    def record_copy(self) -> Path:
        """A second copy of a record that went live, for when `record` is damaged."""
        return self.dir / "release.json.copy"

    @property
    def log(self) -> Path:
        return self.dir / "log"

    @property
    def alive(self) -> Path:
        """Locked (flock) by the worker as long as it lives; if it is free and the release not finished, the worker
        died."""
        return self.dir / "alive"

    @property
    def build_plan(self) -> Path:
        return self.dir / "build.json"

    @property
    def sockets_link(self) -> Path:
        """In the ledger: `vN/sockets`, a link to `run_dir`."""
        return self.dir / "sockets"

    def web_count(self, count: int) -> Path:
        """In the ledger: an empty file that tells nginx of `count` web processes (Ledger.commit)."""
        return self.dir / web_count(count)

    def pool(self, index: int) -> Path:
        """In the ledger: tells nginx through which of its pools the release's requests go (ledger/pool.py)."""
        return self.dir / pool(index)

    @property
    def one(self) -> Path:
        """In the ledger: tells nginx of one web process, and of pool 0."""
        return self.dir / ONE

    @property
    def public(self) -> Path:
        """In the ledger: a link to the directory of the slug that nginx serves; a release with a web process has none."""
        return self.dir / PUBLIC

    @property
    def assets(self) -> Path:
        """In the ledger: the addresses of the release's assets as directories, down to links into the slug."""
        return self.dir / ASSETS

    @property
    def older(self) -> Path:
        """In the ledger: a link to the release that served before with other files, for pages that are still open."""
        return self.dir / OLDER

    @property
    def run_dir(self) -> Path:
        """Where the processes of this release listen: /run/shipit/APP/vN."""
        return self.app.sockets / f"v{self.number}"

    def socket(self, process: TypeName, index: int) -> Path:
        return self.run_dir / f"{process}.{index}.sock"

    def starts(self, process: TypeName, index: int) -> tuple[str, str, str]:
        """Below /run/shipit: where the launcher counts the starts of a process; the directories are the app's."""
        return self.app.name, f"v{self.number}", f"{process}.{index}.starts"

    @property
    def slug(self) -> Path:
        """The tree and its environment; only for releases that built one (see Release.slug)."""
        return self.app.slugs / f"v{self.number}"

    @property
    def config(self) -> Path:
        return self.app.config / f"v{self.number}.json"
