"""The agent's messages: a closed set of verbs with typed fields, one JSON object a line.

No message can carry a path, uid, unit name, template, environment or command: the agent derives all of these from the
verb, the app and the release (threat row 60–62). Both ends import this module, so it has no side effects.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from receiver import names
from receiver.errors import Failure, HostFault, Rejected
from receiver.names import AppName, ConfigKey, TypeName

VERSION = 1
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
MAX_REQUEST = 2**20  # bytes of one line; only config vars make a request large


class Verb(str, Enum):
    """What the agent can be asked to do. `FIELDS` and `FDS` have the fields and file descriptors of each verb."""

    PING = "ping"
    ADOPT = "adopt"
    CREATE_APP = "create_app"
    DESTROY_APP = "destroy_app"
    SNAPSHOT_CONFIG = "snapshot_config"
    READ_CONFIG = "read_config"
    LOG_IN = "log_in"
    BUILD = "build"
    LIST_PARTS = "list_parts"
    GIVE = "give"
    MOUNT = "mount"
    MEASURE = "measure"
    INSTALL_PACKAGES = "install_packages"
    INSTALL_PODMAN = "install_podman"
    CLEAR_CACHE = "clear_cache"
    RELEASE_COMMAND = "release_command"
    CHECK_FILES = "check_files"
    START = "start"
    CHECK_COMMAND = "check_command"
    BOOT_WITH = "boot_with"
    STOP = "stop"
    RESTART = "restart"
    PROCESSES = "processes"
    KEEP_WARM = "keep_warm"
    WARM = "warm"
    COOL = "cool"
    PROXY = "proxy"
    RUN = "run"
    LOOK_EVERY = "look_every"
    PRUNE = "prune"
    PUT_ASIDE = "put_aside"
    CANCEL = "cancel"
    RECONCILE = "reconcile"
    CERTIFY = "certify"
    ADD_CERTIFICATE = "add_certificate"
    REMOVE_CERTIFICATE = "remove_certificate"
    PROVE_BY_DNS = "prove_by_dns"


APP, RELEASE, PROCESS, INDEX, BASE = "app", "release", "process", "index", "base"
SET, UNSET, RELEASES, RUN_ID, WAIT, TTY, NOW = "set", "unset", "releases", "run", "wait", "tty", "now"
SECONDS, PLUGIN, PACKAGES, LOGINS = "seconds", "plugin", "packages", "logins"

FIELDS: Mapping[Verb, frozenset[str]] = {
    Verb.PING: frozenset(),
    # Moves the calling process, the worker of vN, into a unit of its own. {}
    Verb.ADOPT: frozenset({APP, RELEASE}),
    # Users, directories, slice and target of an app. Repeatable. {"created": bool}
    Verb.CREATE_APP: frozenset({APP}),
    # Stops and removes everything of an app, its data included. {}
    Verb.DESTROY_APP: frozenset({APP}),
    # Writes config/vN.json = config/vBASE.json (base 0: empty) + set − unset. {"changed": [NAME, ...]}
    Verb.SNAPSHOT_CONFIG: frozenset({APP, RELEASE, BASE, SET, UNSET}),
    # {"config": {NAME: value}}
    Verb.READ_CONFIG: frozenset({APP, RELEASE}),
    # The logins at registries for builds over this connection, for the images that a Dockerfile names:
    # {HOST: "USER:PASSWORD"}. {}
    Verb.LOG_IN: frozenset({APP, LOGINS}),
    # Makes slugs/vN and runs the builder in it. fds: source (tar stream), output. {"code": int, "digest": str}
    Verb.BUILD: frozenset({APP, RELEASE}),
    # Lists what was installed for vN; a program of its build's user reads the slug (inside/parts.py). fds: output.
    # {"code": int}
    Verb.LIST_PARTS: frozenset({APP, RELEASE}),
    # Gives out the image or the disk of vN as a file that can be deployed again (inside/image.py, inside/disk.py).
    # fds: the file, messages. {"code": int}
    Verb.GIVE: frozenset({APP, RELEASE}),
    # Makes the links to the app's data that build.json of vN now names in slugs/vN, if no file of the commit is there.
    # fds: output. {"code": int, "digest": str}
    Verb.MOUNT: frozenset({APP, RELEASE}),
    # Counts the bytes of the app's data on the disk, as the app's own user. {"used": int}
    Verb.MEASURE: frozenset({APP}),
    # Has apt install these packages of Debian, all of which the server's settings allow (apt_allow), in a unit of its
    # own. fds: output. {"code": int}
    Verb.INSTALL_PACKAGES: frozenset({APP, PACKAGES}),
    # Has apt install podman, unless the server's settings say otherwise (containers). fds: output. {"code": int}
    Verb.INSTALL_PODMAN: frozenset(),
    # Empties the cache of the app's builds. {}
    Verb.CLEAR_CACHE: frozenset({APP}),
    # Runs the release command in the new slug with the new config. fds: output. {"code": int}
    Verb.RELEASE_COMMAND: frozenset({APP, RELEASE}),
    # Finds the slugs of these releases that are not as they were built. {"damaged": [7]}
    Verb.CHECK_FILES: frozenset({APP, RELEASES}),
    # Writes the units of vN and starts its formation, beside the live release and no other; returns when every process
    # has been executed. {}
    Verb.START: frozenset({APP, RELEASE}),
    # Runs the command healthcheck of one process beside it. fds: output. {"code": int}
    Verb.CHECK_COMMAND: frozenset({APP, RELEASE, PROCESS, INDEX}),
    # Makes vN (0: none) start at boot and run by the clock. {}
    Verb.BOOT_WITH: frozenset({APP, RELEASE}),
    # vN's processes: SIGTERM, their drain time, SIGKILL; then the units are removed. wait=false returns at once. {}
    Verb.STOP: frozenset({APP, RELEASE, WAIT}),
    # Restarts one process type in place, one process after another. {}
    Verb.RESTART: frozenset({APP, RELEASE, PROCESS}),
    # {"processes": [{"release": 8, "process": "web", "index": 1, "state": "running", "pid": 9, "since": 1.0,
    #   "restarts": 0, "memory": 0}], "defined": [8], "under_way": [7]}; state: running | warm | starting | stopping | failed | stopped;
    # defined: the releases that the engine has units of; under_way: those that have a scheduled run now
    Verb.PROCESSES: frozenset({APP}),
    # Keeps the request-taking processes of the release that vN replaced for a while, and stops its others. {"kept":
    # bool}
    Verb.KEEP_WARM: frozenset({APP, RELEASE}),
    # The releases that are kept warm. {"releases": [7]}
    Verb.WARM: frozenset({APP}),
    # Stops all that is kept warm. {}
    Verb.COOL: frozenset({APP}),
    # Renders the vhost from the ledger, checks the whole configuration, writes it, reloads nginx if it changed.
    # {"reloaded": bool}
    Verb.PROXY: frozenset({APP}),
    # Runs releases/runs/ID.json as the app, in release vN. fds: 0, 1, 2. {"code": int}
    Verb.RUN: frozenset({APP, RELEASE, RUN_ID, TTY}),
    # Starts a timer that looks every so many seconds whether the repository that the app follows has moved; 0: no
    # timer. {}
    Verb.LOOK_EVERY: frozenset({APP, SECONDS}),
    # Removes slug, config and units of these releases. Refuses what the ledger still needs. {}
    Verb.PRUNE: frozenset({APP, RELEASES}),
    # Stops vN, which did not go live, and removes all of it except its slug. {}
    Verb.PUT_ASIDE: frozenset({APP, RELEASE}),
    # Stops a running build, release command or check of vN. {}
    Verb.CANCEL: frozenset({APP, RELEASE}),
    # Makes the processes, boot links and vhost of an app equal to its ledger. {"done": ["started v7", ...]}
    Verb.RECONCILE: frozenset({APP}),
    # Asks for the certificates that the app's names need (now: for all of them, even if that has just failed), checks
    # and installs them, and has nginx use them. fds: output.
    # {"names": [{"name": "a.example.org", "done": bool, "why": ""}]}
    Verb.CERTIFY: frozenset({APP, NOW}),
    # Installs an admin's own certificate, if it is valid. fds: certificate, chain and key (PEM). {"names": [...]}
    Verb.ADD_CERTIFICATE: frozenset({APP}),
    # {"removed": bool}
    Verb.REMOVE_CERTIFICATE: frozenset({APP}),
    # Proves the app's names by DNS from now on: a plugin of certbot ("": by HTTP again), and the seconds that it waits.
    # fds: its credentials. {}
    Verb.PROVE_BY_DNS: frozenset({APP, PLUGIN, SECONDS}),
}

FDS: Mapping[Verb, int] = {
    Verb.BUILD: 2, Verb.LIST_PARTS: 1, Verb.GIVE: 2, Verb.MOUNT: 1, Verb.INSTALL_PACKAGES: 1, Verb.INSTALL_PODMAN: 1,
    Verb.RELEASE_COMMAND: 1, Verb.CHECK_COMMAND: 1, Verb.RUN: 3,
    Verb.CERTIFY: 1, Verb.ADD_CERTIFICATE: 1, Verb.PROVE_BY_DNS: 1,
}  # fmt: skip

_REGISTRY = re.compile(r"[][A-Za-z0-9.:-]{1,300}", re.ASCII)
_LOGIN = re.compile(r"[^:\x00-\x1f\x7f]{1,1000}:[^\x00-\x1f\x7f]{1,8192}")
_INTS = {RELEASE: (0, 10**9), BASE: (0, 10**9), INDEX: (1, 100), SECONDS: (0, 7 * 86400)}


@dataclass(frozen=True)
class Request:
    """One decoded request. Fields a verb does not have keep their defaults.

    `sender` is the sender's pid, from the kernel (0: unknown); no message can carry it.
    """

    verb: Verb
    app: AppName = AppName("")
    release: int = 0
    base: int = 0
    process: TypeName = TypeName("")
    index: int = 1
    set: Mapping[ConfigKey, str] = field(default_factory=dict, repr=False)
    unset: tuple[ConfigKey, ...] = ()
    releases: tuple[int, ...] = ()
    run: str = ""
    wait: bool = True
    tty: bool = False
    now: bool = False
    seconds: int = 0
    plugin: str = ""
    packages: tuple[str, ...] = ()
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)
    sender: int = 0


def encode_request(request: Request) -> bytes:
    """One line, with just the verb's fields."""
    body: dict[str, Any] = {"v": VERSION, "verb": request.verb.value}
    for name in FIELDS[request.verb]:
        value = getattr(request, name)
        body[name] = list(value) if isinstance(value, tuple) else value
    return json.dumps(body).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Parse one line; raises Rejected for anything that is not exactly a request."""
    try:
        body = json.loads(line)
        if type(body) is not dict or body.pop("v", None) != VERSION:
            raise Rejected("Not a request of this version.")
        verb = Verb(body.pop("verb", None))
        if set(body) != FIELDS[verb]:
            raise Rejected(f"{verb.value}: wrong fields.")
        return Request(verb=verb, **{name: _field(name, value) for name, value in body.items()})
    except Rejected:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Rejected("Not a request.") from error


def _field(name: str, value: Any) -> Any:
    if name == APP and type(value) is str:
        return names.app_name(value)
    if name == PROCESS and type(value) is str:
        return names.type_name(value) if value else TypeName("")
    if name in _INTS and type(value) is int:
        low, high = _INTS[name]
        if low <= value <= high:
            return value
    if name in (NOW, WAIT, TTY) and type(value) is bool:
        return value
    if name == PLUGIN and type(value) is str:
        return names.dns_plugin(value) if value else ""
    if name == RUN_ID and type(value) is str:
        return names.oid(value)
    if name == SET and type(value) is dict and all(type(v) is str and "\0" not in v for v in value.values()):
        return {names.config_key(k): v for k, v in value.items()}
    if name == UNSET and type(value) is list:
        return tuple(names.config_key(k) for k in value)
    if name == PACKAGES and type(value) is list and 1 <= len(value) <= 100 and all(type(n) is str for n in value):
        return tuple(names.package(n) for n in value)
    if name == LOGINS and type(value) is dict and all(_is_login(host, who) for host, who in value.items()):
        return value
    if name == RELEASES and type(value) is list and all(type(n) is int and 1 <= n <= 10**9 for n in value):
        return tuple(value)
    raise Rejected(f"{name}: bad value.")


def _is_login(host: str, who: Any) -> bool:
    return bool(_REGISTRY.fullmatch(host) and type(who) is str and _LOGIN.fullmatch(who))


def encode_error(failure: Failure) -> dict[str, Any]:
    return {
        "message": failure.message, "holds": failure.holds, "hint": failure.hint,
        "details": list(failure.details), "exit": failure.exit_code,
    }  # fmt: skip


def decode_error(body: Mapping[str, Any]) -> Failure:
    """The failure that the agent reported, as an exception to raise here."""
    try:
        failure = HostFault(
            str(body["message"]), holds=str(body["holds"]), hint=str(body["hint"]),
            details=[str(line) for line in body["details"]],
        )  # fmt: skip
        failure.exit_code = int(body["exit"])
    except (KeyError, TypeError, ValueError):
        return HostFault("The agent's answer could not be read.", hint="shipit doctor")
    return failure
