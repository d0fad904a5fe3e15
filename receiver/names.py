"""Typed names: parsed or refused, never repaired. The only place with the grammar of names."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NewType

from receiver.errors import Rejected

AppName = NewType("AppName", str)
TypeName = NewType("TypeName", str)
ConfigKey = NewType("ConfigKey", str)
Domain = NewType("Domain", str)
KeyName = NewType("KeyName", str)
Oid = NewType("Oid", str)
Branch = NewType("Branch", str)

# 26 letters: `build-` and the app's name must fit a Linux user name (useradd(8): at most 32).
APP_MAX = 26
_APP = re.compile(rf"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){{0,{APP_MAX - 1}}}", re.ASCII)
# Heroku's, in lower case; 40 letters leave room for `shipit-APP-TYPE-vN@1.service` (255).
_PROCESS = re.compile(r"[a-z](?:[a-z0-9]|[-_](?=[a-z0-9])){0,39}", re.ASCII)
# POSIX (XBD 8.1) leaves lower-case names to applications: http_proxy, no_proxy.
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_PLUGIN = re.compile(r"[a-z0-9]{1,30}", re.ASCII)
_VISITOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
_KEYNAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
# A strict subset of git-check-ref-format(1): every branch people use, none that looks like an option.
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock(?:/|$)))[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}(?<![./])", re.ASCII)
_SLUG_PATH = re.compile(r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*", re.ASCII)
_URL_SEGMENT = r"(?:\.well-known|[A-Za-z0-9_~-][A-Za-z0-9._~-]*)"
_URL_PATH = re.compile(rf"/|(?:/{_URL_SEGMENT})+/?", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}", re.ASCII)
_AWS_LINE = re.compile(
    r"[#;][ -~]*|\[default\]|aws_(?:access_key_id|secret_access_key|session_token)[ \t]*=[ -~\t]*|[ \t]*", re.ASCII
)
_RELEASE = re.compile(r"v?([1-9][0-9]{0,8})", re.ASCII)

# Names that shipit or the system sets, or that would change how a shell reads the app's command. LD_PRELOAD and the
# like are allowed: the launcher sets them only when it becomes the app's own process.
RESERVED_CONFIG = frozenset(
    {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "IFS", "ENV", "BASH_ENV", "PORT", "SOCKET", "CREDENTIALS_DIRECTORY"}
)
RESERVED_CONFIG_PREFIXES = ("SHIPIT_", "LISTEN_")
# Settings for package downloads: a build always sees these, beside the vars that the manifest lists.
BUILD_CONFIG_PREFIXES = ("PIP_", "UV_", "POETRY_", "DISABLE_COLLECTSTATIC")
EVERY = "*"  # in `build.config`: all config vars
RESERVED_APPS = frozenset({"all", "shipit", "agent", "build", "deploy", "reconcile"})


def app_name(text: str) -> AppName:
    """Parse an app's name; raises Rejected with the rule."""
    if not _APP.fullmatch(text):
        raise Rejected(
            f"{_shown(text)} is not an app name.",
            hint=_app_rule(text),
        )
    if text in RESERVED_APPS:
        raise Rejected(f"The name {text!r} is reserved.", hint="Choose another name for the app.")
    return AppName(text)


def _app_rule(text: str) -> str:
    """The rule for app names, and why this one breaks it: it is a label of the app's address and part of a user's
    name."""
    rule = f"Lower-case letters, digits and single dashes, {APP_MAX} at most: my-app"
    if len(text) > APP_MAX:
        return f"{rule}\nIts user on the server is build-NAME, and Linux allows 32 characters."
    near = re.sub(r"[._\s]+", "-", text.lower())
    return f"{rule}\nFor example: {near}" if near != text and _APP.fullmatch(near) else rule


def type_name(text: str) -> TypeName:
    """Parse a process type (`web`, `worker`); raises Rejected with the rule."""
    if not _PROCESS.fullmatch(text):
        raise Rejected(
            f"{_shown(text)} is not a process type.",
            hint="A process type is a lower-case letter, then letters, digits, single dashes and _, 40 at most.",
        )
    return TypeName(text)


# The limits that one process can have.
LIMITS = ("memory", "cpu", "tasks")


def limit_name(text: str) -> str:
    """Parse the name of a limit of one process type: `web.memory`; raises Rejected."""
    kind, _, what = text.partition(".")
    type_name(kind)
    if what not in LIMITS:
        raise Rejected(
            f"{_shown(text)} is not the name of a limit.", hint=f"After the process type: {', '.join(LIMITS)}"
        )
    return text


def config_key(text: str) -> ConfigKey:
    """Parse the name of a config var; raises Rejected with the rule, or when shipit sets that name itself."""
    if not _KEY.fullmatch(text):
        raise Rejected(
            f"{_shown(text)} is not the name of a config var.",
            hint="Letters, digits and _, not beginning with a digit: DATABASE_URL",
        )
    if text in RESERVED_CONFIG or text.startswith(RESERVED_CONFIG_PREFIXES):
        raise Rejected(f"The config var {text} is set by shipit or the system.", hint="Choose another name.")
    return ConfigKey(text)


def build_config(text: str) -> ConfigKey:
    """Parse the name of a config var that a build may see, or EVERY; raises Rejected."""
    return ConfigKey(EVERY) if text == EVERY else config_key(text)


def build_may_see(key: str, listed: Collection[str]) -> bool:
    """Whether a build may see the config var `key`; `listed` is `build.config` of shipit.yml."""
    return EVERY in listed or key in listed or key.startswith(BUILD_CONFIG_PREFIXES)


def domain(text: str) -> Domain:
    """Parse a DNS name (RFC 1123, at most 253 characters; `*.example.org` allowed); lower case only."""
    if len(text) > 253 or not _DOMAIN.fullmatch(text):
        near = _domain_near(text)
        raise Rejected(
            f"{_shown(text)} is not a domain.",
            hint=f"In DNS it is written: {near}"
            if near
            else "Lower-case letters, digits and dashes, parts joined by dots: www.example.org",
        )
    return Domain(text)


def _domain_near(text: str) -> str:
    """How DNS writes a name in capitals, with a final dot, with letters beyond ASCII, or of an address; "" if that is
    not known.

    The standard library has the old IDNA of 2003, which maps a few letters differently than today's; for names with
    these, and for those it refuses, nothing is suggested.
    """
    near = text.strip().lower()
    near = re.sub(r"^https?://", "", near).partition("/")[0].removesuffix(".")
    if not near.isascii() and not set(near) & set("ßς\u200c\u200d"):
        try:
            near = near.encode("idna").decode("ascii")
        except UnicodeError:
            return ""
    return near if len(near) <= 253 and _DOMAIN.fullmatch(near) else ""


def dns_plugin(text: str) -> str:
    """Parse the name of a certbot plugin that proves names by DNS, without its `dns-`; raises Rejected."""
    if not _PLUGIN.fullmatch(text):
        raise Rejected(
            f"{_shown(text)} is not the name of a DNS plugin.",
            hint="As in python3-certbot-dns-NAME: cloudflare, route53, rfc2136 …",
        )
    return text


def aws_keys(text: str) -> str:
    """Parse a credentials file for Amazon's library; raises Rejected. Only keys are allowed: other settings there could
    run a program, read a file, or ask a server that the file names."""
    for number, line in enumerate(text.splitlines(), 1):
        if not _AWS_LINE.fullmatch(line):
            raise Rejected(
                f"Line {number} of the credentials is not taken.",
                hint="For route53:  [default]  aws_access_key_id = …  aws_secret_access_key = …  (one a line)",
            )
    return text


def url_path(text: str) -> str:
    """Parse the path of an address: of plain characters, without `.`, `..` and hidden names but `.well-known`."""
    if len(text) > 500 or not _URL_PATH.fullmatch(text):
        raise Rejected(
            f"{_shown(text)} is not a path of an address.",
            hint="Letters, digits and - . _ ~ between slashes: /docs/start",
        )
    return text


def visitor(text: str) -> str:
    """Parse the name by which a visitor of a guarded app logs in; raises Rejected with the rule."""
    if not _VISITOR.fullmatch(text):
        raise Rejected(f"{_shown(text)} is no name for a login.", hint="Letters, digits and . _ @ -, 64 at most: alice")
    return text


def key_name(text: str) -> KeyName:
    """Parse the name of an ssh key; raises Rejected with the rule."""
    if not _KEYNAME.fullmatch(text):
        raise Rejected(
            f"{_shown(text)} is not a key name.",
            hint="A lower-case letter, then letters, digits, _ and -, 32 at most: alice-laptop",
        )
    return KeyName(text)


def oid(text: str) -> Oid:
    """Parse a full git object id (SHA-1 or SHA-256, lower-case hex)."""
    if not _OID.fullmatch(text):
        raise Rejected(f"{_shown(text)} is not a full commit id.")
    return Oid(text)


def is_oid(text: str) -> bool:
    """Whether it is a full git object id."""
    return _OID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether it is a SHA-256 in hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


def is_branch(text: str) -> bool:
    """Whether it is a branch's name, or a tag's."""
    return _BRANCH.fullmatch(text) is not None


def branch(text: str) -> Branch:
    """Parse a branch name without `refs/heads/`; narrower than git-check-ref-format(1)."""
    if not _BRANCH.fullmatch(text):
        raise Rejected(f"{_shown(text)} is not a branch name that shipit deploys.")
    return Branch(text)


def package(text: str) -> str:
    """Parse the name of a Debian package (policy 5.6.1). With a dash at its end apt would remove the package."""
    if not _PACKAGE.fullmatch(text) or text.endswith("-"):
        raise Rejected(f"{_shown(text)} is not the name of a package of Debian.")
    return text


def package_pattern(text: str) -> str:
    """Parse a package name in which `*` stands for any letters: php-*."""
    package(text.replace("*", "x"))
    return text


def slug_path(text: str) -> str:
    """Parse the path of a directory in a slug: relative, without `.` and `..`."""
    if not _SLUG_PATH.fullmatch(text):
        raise Rejected(f"{_shown(text)} is not a directory of a release.")
    return text


def pages(text: str) -> str:
    """Parse the directory of a release that nginx serves, `.` for all of it; raises Rejected."""
    if text != "." and (len(text) > 400 or not _SLUG_PATH.fullmatch(text)):
        raise Rejected(
            f"{_shown(text)} is not a directory of the release, which nginx could serve.",
            hint="Name one in shipit.yml:  static: dist",
        )
    return text


def mount(text: str) -> tuple[str, str]:
    """Parse `DATA:PLACE`, or `PLACE` for both: a path of the app's data, and where it is mounted in its release."""
    data, colon, place = text.partition(":")
    place = place if colon else data
    if not (_SLUG_PATH.fullmatch(data) and _SLUG_PATH.fullmatch(place)) or len(text) > 400:
        raise Rejected(
            f"{_shown(text)} is not DATA:PLACE.",
            hint="Two relative paths, of $DATA_DIR and of the release: uploads:public/uploads\n"
            "(one stands for both: uploads)",
        )
    return data, place


def release_number(text: str) -> int:
    """Parse `v7` or `7` to 7; raises Rejected."""
    match = _RELEASE.fullmatch(text)
    if not match:
        raise Rejected(
            f"{_shown(text)} is not a release.", hint="A release is written v7; list them: shipit releases APP"
        )
    return int(match[1])


def is_release(text: str) -> bool:
    """Whether it is written as a release: `v7`."""
    return text[:1] == "v" and _RELEASE.fullmatch(text) is not None


def _shown(text: str) -> str:
    """A name as it was given, safe to print: quoted, control characters escaped, cut."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
