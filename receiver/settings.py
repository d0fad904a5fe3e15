"""Server settings: /etc/shipit/shipit.yml, written by install.sh, edited by the administrator. Unknown keys are
errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from receiver import names
from receiver.errors import Rejected
from receiver.names import AppName, Domain

# The patterns of texts that other programs read.
_PATTERNS = {
    "acme_directory": r"https://[!-~]{1,500}",
    "acme_dns": r"([a-z0-9]{1,30})?",
    "acme_email": r"([A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253})?",
    "acme_ca_bundle": r"(/[A-Za-z0-9._/+-]{1,500})?",
}
LONGEST_WARM = 86400  # as in shipit.schema.json


@dataclass(frozen=True)
class Settings:
    """Sizes are in MiB, times in seconds. docs/operating.md lists all of them; these need an explanation here:

    - `domain`: an app without a domain of its own answers at APP.domain
    - `auto_tls`: certificates are requested for the names of every app, not only of those with `tls:enable`
    - `acme_directory`: the authority's address; `acme_email`: where it may write to
    - `acme_ca_bundle`: a file with the authorities that certbot trusts when it connects ("": the system's)
    - `acme_dns`: the plugin of certbot that proves all names by DNS ("": by HTTP)
    - `trusted_proxies`: addresses, networks or `cloudflare`, whose headers about a client are believed
    - `proxy_protocol`: they use the PROXY protocol for that, and the server's ports speak nothing else
    - `connections`: how many requests and websockets an app may have open at once
    - `push_memory`: the memory of each process that serves a login or makes a release
    - `warm`: for how long the release that another replaces is kept running for a rollback
    - `builds`: how many run at once, 0 for no limit
    - `signed_only`: archives and packages that are sent need a signature of a key of this server
    - `storage_quota`: how much the data of each app may take, 0: no limit (`storage:quota` overrides it)
    - `cache`: how much each app's builds may keep; its LFS files and submodules may take as much again
    - `allow_domains`: app (`*`: any) → the names that its shipit.yml may ask for without an admin, separated by blanks;
      `*.example.org` means all names below it
    - `notify`: where to send messages about the releases of all apps (ops/notify)
    - `apt_allow`: the Debian packages that an app may have installed, separated by blanks; `php-*` means all with that
      prefix
    - `containers`: podman is installed with the first container image that an admin deploys
    """

    domain: str = "localhost"
    http_port: int = 80
    https_port: int = 443
    auto_tls: bool = False
    acme_directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    acme_email: str = ""
    acme_ca_bundle: str = ""
    acme_dns: str = ""
    trusted_proxies: tuple[str, ...] = ()
    proxy_protocol: bool = False
    connections: int = 3000
    ssh_port: int = 22
    create_on_push: bool = True
    max_push: int = 1024
    push_memory: int = 1024
    max_files: int = 200_000
    min_free: int = 512
    keep: int = 5
    warm: int = 0
    storage_quota: int = 0
    builds: int = 2
    signed_only: bool = False
    cache: int = 2048
    build_timeout: int = 1800
    build_memory: int = 2048
    build_tasks: int = 2048
    release_command_timeout: int = 600
    build_environment: dict[str, str] = field(default_factory=dict)
    allow_domains: dict[str, str] = field(default_factory=dict)
    notify: dict[str, str] = field(default_factory=dict)
    apt_allow: str = ""
    containers: bool = True


def with_line(text: str, name: str, value: str | int) -> str:
    """The text of the settings with one top-level line replaced or added; the rest is unchanged."""
    line = f"{name}: {value}"
    changed, count = re.subn(rf"^{re.escape(name)}\s*:.*$", line, text, count=1, flags=re.MULTILINE)
    return changed if count else text.rstrip("\n") + f"\n{line}\n"


def default_domain(app: AppName, settings: Settings) -> Domain:
    """The name that every app has: APP.domain."""
    return Domain(f"{app}.{settings.domain}")


def url(app: AppName, domains: Sequence[Domain], settings: Settings, secure: Collection[Domain] = ()) -> str:
    """The URL of an app that answers at these domains; `secure` are those with a certificate."""
    plain = [name for name in domains if not name.startswith("*.")]
    name = (*plain, default_domain(app, settings))[0]
    if name in secure:
        return f"https://{name}{https_port(settings)}"
    return f"http://{name}" + ("" if settings.http_port == 80 else f":{settings.http_port}")


def https_port(settings: Settings) -> str:
    """The port in a URL, with its colon; "" for the usual port."""
    return "" if settings.https_port == 443 else f":{settings.https_port}"


def load(path: Path) -> Settings:
    """Read the settings; a missing file means all defaults. Raises Rejected, which names the wrong key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except ValueError as error:
        raise Rejected(f"{path} is not UTF-8 text.") from error
    import yaml

    try:
        data = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise Rejected(f"{path} is not YAML: {ascii(str(error))[1:-1]}") from error
    return parse(data, str(path))


def parse(data: Any, where: str) -> Settings:
    """Check names and types against the dataclass: the types are those of its defaults."""
    if not isinstance(data, dict):
        raise Rejected(f"{where} is not a mapping.")
    known = {f.name: f for f in fields(Settings)}
    default = Settings()
    for key, value in data.items():
        if key not in known:
            raise Rejected(f"{where}: unknown key {key!r}.", hint="Known keys: " + ", ".join(sorted(known)))
        if isinstance(value, dict) and True in value:
            # YAML 1.1 reads the word `on` as true.
            value = {"on" if name is True else name: said for name, said in value.items()}
            data = {**data, key: value}
        wanted = type(getattr(default, key))
        if wanted is tuple:
            data = {**data, key: _proxies(value, where)}
            continue
        if type(value) is not wanted or (wanted is int and value < 0):
            raise Rejected(f"{where}: {key} must be a {wanted.__name__}.")
        if key in _PATTERNS and not re.fullmatch(_PATTERNS[key], value):
            raise Rejected(f"{where}: {key} cannot be {ascii(value)[:80]}.", hint=f"See {key} in docs/tls.md")
        if key == "warm" and value > LONGEST_WARM:
            raise Rejected(f"{where}: warm must be {LONGEST_WARM} at most (a day).")
        if wanted is dict and not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
            raise Rejected(f"{where}: {key} must map names to strings.")
        if key == "apt_allow":
            for pattern in value.split():
                names.package_pattern(pattern)
        if key == "allow_domains":
            for app, patterns in value.items():
                _ = app == "*" or names.app_name(app)
                for pattern in patterns.split():
                    names.domain(pattern)
    if data.get("proxy_protocol") and not data.get("trusted_proxies"):
        raise Rejected(
            f"{where}: proxy_protocol is on, and no proxy is trusted to tell who the client is.",
            hint="trusted_proxies: [10.0.0.2]",
        )
    return Settings(**data)


def _proxies(value: Any, where: str) -> tuple[str, ...]:
    """`trusted_proxies`: addresses and networks in the form of nginx's set_real_ip_from; raises Rejected."""
    import ipaddress

    found = []
    for name in value if isinstance(value, list) else [value]:
        try:
            # Python accepts an interface's name after an address, nginx does not.
            if isinstance(name, str) and "%" in name:
                raise ValueError("has a zone")
            found.append(name if name == "cloudflare" else str(ipaddress.ip_network(name)))
        except (ValueError, TypeError) as error:
            raise Rejected(
                f"{where}: trusted_proxies: {ascii(name)[:60]} is no address and no network.",
                hint="trusted_proxies: [10.0.0.2, 192.168.0.0/24, cloudflare]",
            ) from error
    return tuple(found)
