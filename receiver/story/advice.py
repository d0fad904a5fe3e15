"""Advice for known causes of a process's trouble, found in its last lines."""

from __future__ import annotations

import os.path
import re
from collections.abc import Collection, Iterable

from receiver.inside.launch import FILES
from receiver.inside.storage import DATABASES
from receiver.model import Release
from receiver.names import AppName
from receiver.ops.quota import hint as quota_hint

_READ_ONLY = re.compile(
    r"Read-only file system|\bEROFS\b|read-only file system|unable to open database file|"
    r"attempt to write a readonly database|readonly database|"
    r"(?:PermissionError|Permission denied|EACCES).*?/var/lib/shipit/apps/[^/]+/slugs/"
)
# Python's message ends with the file's name; in Node's it comes before the code; SQLite's names no file.
_FILE = re.compile(
    r"(?:Read-only file system|Permission denied):? '[^']+' -> '([^']+)'|"
    r"(?:Read-only file system|Permission denied):? '([^']+)'|(?:mkdir|open|unlink|scandir|copyfile) '([^']+)'|"
    # Go, and Ruby.
    r"(?:mkdir|open|create|unlinkat) ([\w./-]+): (?:read-only file system|permission denied)|"
    r"(?:Read-only file system|Permission denied) @ \w+ - (\S+)"
)
# These are no "read-only" errors, because a directory is missing; but the app wants to write there all the same.
_ABOVE = re.compile(r"ENOENT.*\bmkdir '([^']+)'|No such file or directory:? '([^']+\.log)'")
_DATABASE = re.compile(r"(?<![\w./-])([\w./-]*\w\.(?:db|sqlite3?))\b(?!\.\w)")
_IN_SLUG = re.compile(r"/var/lib/shipit/apps/[^/]+/slugs/v[0-9]+/(.+)")
_FULL = re.compile(r"Disk quota exceeded|\bEDQUOT\b|disk quota exceeded")
_HOSTS = re.compile(
    r"Invalid HTTP_HOST header: '([\w.:\[\]-]+)'|add '?([\w.:\[\]-]+)'? to ALLOWED_HOSTS|DisallowedHost"
)
_DOT_ENV = re.compile(r"FileNotFoundError: .{0,200}(?:^|[/'\" ])\.env['\"]")
# As uvicorn, asyncio and Python's own servers, Node, and Go say it.
_LOW_PORT = re.compile(
    r"^(?:ERROR:\s+|OSError: |PermissionError: )?\[Errno 13\] Permission denied$|"
    r"\[Errno 13\] error while attempting to bind|listen EACCES: permission denied|bind: permission denied"
)
_WHERE_PORTS_ARE = "many programs have an option, a line of their configuration or a variable for it."
_ONE_NAME = re.compile(r"[\w.@+-]{1,100}")
# An app may print very long lines, and some of these patterns take time with the square of a line's length.
_LONGEST = 2000


def _short(lines: Iterable[str]) -> list[str]:
    return [line[:_LONGEST] for line in lines]


def advice(app: AppName, lines: Iterable[str], host: str = "", given: Collection[str] = ()) -> str:
    """What to do, by the newest line that we know; "" if we know none. `host`: the name that the app was asked for.
    `given`: places of the release that are of the app's data already; what an earlier start said of them is no cause."""
    said = [line for line in _short(lines) if not (given and beside([line]) in given)]
    # Below the line that has code and file, Node prints the code again without the file: prefer the former.
    for line in (*(line for line in said[::-1] if _FILE.search(line)), *said[::-1]):
        if _READ_ONLY.search(line):
            file = _file_of(line, said)
            last = file.rstrip("/").rpartition("/")[2]
            # Only a plain name may go from the app's output into shipit's line.
            name = last if _ONE_NAME.fullmatch(last) else ""
            place = _place(file) if file else ""
            mount = f"\nOr have the app write beside itself, in shipit.yml:  storage: [{place}]" if place else ""
            return (
                f"A release is read-only. Write below $DATA_DIR (/var/lib/shipit/apps/{app}/data), which stays over releases: "
                f"$DATA_DIR/{name or 'the file instead of beside the code'}{mount}"
            )
        if _FULL.search(line):
            return (
                f"The machine's own quota for the user app-{app} is used up. {quota_hint(app)}\n"
                f"An administrator sees it as root: quota -u app-{app}"
            )
        if _LOW_PORT.search(line):
            return f"No app may listen on a port below 1024. Have it listen on 127.0.0.1:$PORT; {_WHERE_PORTS_ARE}"
        if told := _service(app, line):
            return told
        if _DOT_ENV.search(line):
            return (
                f"The app reads a file .env, which is not in the commit. Set what it would hold:  shipit config:set {app} "
                "NAME=…\nand have an empty one in the commit:  touch .env; git add -f .env (in the directory that is named above)"
            )
        if found := _HOSTS.search(line):
            name = found[1] or found[2] or host or "the app’s domain"
            return (
                f"Add {name} to ALLOWED_HOSTS of Django's settings (nginx passes on only the app's names: '*' will do)."
            )
        if name := missing(line):
            return f"The app needs the config var {name}, which is not set:  shipit config:set {app} {name}=…"
        if told := _of_runtimes(line):
            return told
    return ""


# What drivers print if nothing answers: the service, and where it was asked for.
_SERVICES = (
    ("PostgreSQL", re.compile(r"(?:connection to server at|could not translate host name) \"([\w.:-]{1,200})\"")),
    ("MySQL", re.compile(r"Can't connect to (?:MySQL )?server on '([\w.:-]{1,200})'")),
    ("Redis", re.compile(r"redis\.exceptions\.ConnectionError: Error [-\d]+ connecting to ([\w.-]{1,200}:\d+)")),
    ("Redis", re.compile(r"connect ECONNREFUSED ([\w.:-]{1,200}:6379)\b")),
    ("PostgreSQL", re.compile(r"connect ECONNREFUSED ([\w.:-]{1,200}:5432)\b")),
)


def _service(app: AppName, line: str) -> str:
    for name, pattern in _SERVICES:
        if found := pattern.search(line):
            return (
                f"The app wants {name}, and cannot use it at {found[1]}. Have it run there, or name another to the app, with "
                f"the variables that its settings read:  shipit config:set {app} NAME=…"
            )
    return ""


def _of_runtimes(line: str) -> str:
    from receiver.runtimes.all import RUNTIMES

    return next(filter(None, (runtime.advice(line) for runtime in RUNTIMES)), "")


def missing(line: str) -> str:
    """The config var that a line says is missing; "" if it says nothing of the kind."""
    found = _MISSING.search(line)
    name = next(filter(None, found.groups()), "") if found else ""
    # KeyError names a key of any dict; only names in capitals are taken for variables.
    return name if name.isupper() else ""


def secret(lines: Iterable[str]) -> str:
    """The missing config var that ended a process, by the newest line that names one, if any random value will do for
    it (a key to sign cookies). "" for any other, such as a password of another service."""
    for line in _short(lines)[::-1]:
        if name := missing(line):
            return name if _SECRET.fullmatch(name) else ""
        if (found := _SECRET.search(line)) and _WANTED.search(line):
            return found[0]
    return ""


def wants_another_start(lines: Iterable[str]) -> bool:
    """Whether one of the lines tells of what a running process cannot be given: a place to write, a secret."""
    said = _short(lines)
    return any(_READ_ONLY.search(line) for line in said) or bool(secret(said))


def beside(lines: Iterable[str], database: str = "") -> str:
    """The path in its release where a process wanted to write, as `storage` has it, by the newest line that names one;
    "" if none does. SQLite names no file, so `database` is the path that the app's sources give."""
    said = _short(lines)
    for line in (*(line for line in said[::-1] if _FILE.search(line) or _ABOVE.search(line)), *said[::-1]):
        if _READ_ONLY.search(line):
            found = _file_of(line, said) or (database if "database" in line else "")
            return _place(found) if found else ""
        if above := _ABOVE.search(line):
            place = _place(next(filter(None, above.groups())))
            return place.split("/")[0] if above[1] else place
    return ""


def _file_of(line: str, said: Iterable[str]) -> str:
    """The file that a line is about. SQLite's message names none, but a line of the traceback may."""
    if found := _FILE.search(line):
        return str(next(filter(None, found.groups())))
    database = next(filter(None, map(_DATABASE.search, said)), None) if "database" in line else None
    return database[1] if database else ""


def _place(path: str) -> str:
    """The place for `storage` of a file in a release: for a file that is no database, its directory; "" if there is
    none."""
    match = _IN_SLUG.fullmatch(path)
    inside = os.path.normpath(match[1] if match else path)
    if inside.startswith(("/", "..")) or not _NAME.fullmatch(inside):
        return ""
    directory, _, name = inside.rpartition("/")
    return directory if directory and "." in name[1:] and not name.endswith(DATABASES) else inside


def file_beside(lines: Iterable[str]) -> str:
    """The file itself, for the directory that `beside` returned; "" if `storage` does not take this file alone."""
    for line in _short(lines)[::-1]:
        if _READ_ONLY.search(line) and (found := _FILE.search(line)):
            path = next(filter(None, found.groups()))
            match = _IN_SLUG.fullmatch(path)
            inside = os.path.normpath(match[1] if match else path)
            return inside if inside.endswith(FILES) and not inside.startswith(("/", "..")) else ""
    return ""


_NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
# What a settings file prints if a variable is missing.
_MISSING = re.compile(
    r"KeyError: '([A-Za-z_][A-Za-z0-9_]*)'|Set the ([A-Z][A-Z0-9_]*) environment variable|"
    r"UndefinedValueError: ([A-Z][A-Z0-9_]*) not found|environment variable '?\"?([A-Z][A-Z0-9_]+)'?\"? (?:is )?not set|"
    r"[Mm]issing (?:required )?env(?:ironment)? var(?:iable)?s?:? '?\"?([A-Z][A-Z0-9_]+)|"
    r"[Ee]nvironment variable [\"'`]?([A-Z][A-Z0-9_]+)[\"'`]? (?:(?:is )?(?:not set|not defined|undefined|required|not found|missing)|must be set)|"
    r"\b([A-Z][A-Z0-9_]+) (?:environment variable|env var) (?:(?:is )?(?:not set|not defined|undefined|required|not found|missing)|must be set)|"
    r"[Pp]lease (?:configure|set|define|provide|specify) (?:(?:an?|the|your) )?([A-Z][A-Z0-9_]{3,})\b|"
    r"The ([A-Z]+_KEY) setting must not be empty"
)
_SECRET = re.compile(
    r"\b(?:(?:DJANGO_|FLASK_|APP_)?SECRET_KEY(?:_BASE)?|APP_SECRET|SESSION_SECRET(?:_KEY)?|COOKIE_SECRET)\b(?!=)"
)
_WANTED = re.compile(r"\b(?:please|must|missing|required|not set|unset|empty|configure|define)\b", re.IGNORECASE)
COMPILER = "build-essential"
# What a build prints if a system package is missing, and the Debian package that has it.
_SYSTEM = (
    (r"pg_config|libpq-fe\.h", "libpq-dev"),
    (r"mysql_config|mysqlclient|mysql\.h", "default-libmysqlclient-dev pkg-config"),
    (r"ffi\.h: No such", "libffi-dev"), (r"openssl/\w+\.h: No such", "libssl-dev"),
    (r"libxml/\w+\.h: No such|libxml2 and libxslt|xslt-config", "libxml2-dev libxslt1-dev"),
    (r"jpeglib\.h|RequiredDependencyException: jpeg", "libjpeg-dev zlib1g-dev"), (r"zlib\.h: No such", "zlib1g-dev"),
    (r"ldap\.h: No such|lber\.h: No such", "libldap2-dev libsasl2-dev"), (r"gdal-config|gdal_version", "libgdal-dev"),
    (r"geos_c\.h|geos-config", "libgeos-dev"), (r"Python\.h: No such", "python3-dev"),
    (r"xmlsec1?/?\w*\.h: No such|Unable to find xmlsec", "libxmlsec1-dev pkg-config"),
    (r"cairo\.h|Dependency \"cairo\" not found", "libcairo2-dev pkg-config"), (r"sqlite3\.h: No such", "libsqlite3-dev"),
    (r"yaml\.h: No such", "libyaml-dev"), (r"magic\.h: No such", "libmagic-dev"), (r"ruby\.h: No such", "ruby-dev"),
    (r"snappy-c\.h", "libsnappy-dev"), (r"curl-config", "libcurl4-openssl-dev"), (r"vips/vips|vips-cpp", "libvips-dev"),
    (r"Rust (?:compiler|toolchain)|(?:cargo|rustc): (?:command )?not found|can't find Rust compiler", "cargo"),
    (r"cmake:? (?:(?:command )?not found|.*No such file)|CMake must be installed", "cmake"),
    (r"ICU_VERSION environment", "libicu-dev pkg-config"),
    (r"pkg-config:? (?:(?:command )?not found|.*No such file)|[Ii]nstall pkg-config", "pkg-config"),
    (r"ext-(\w+) \S+ -> it is missing|ignore-platform-req=ext-(\w+)|PHP extension (?:ext-)?(\w+) is missing",
     r"php-\1\2\3"),
    (r"ffmpeg: (?:command )?not found", "ffmpeg"), (r"jekyll: (?:command )?not found", "jekyll"),
    (r"cannot load such file -- (jekyll-(?:archives|avatar|feed|gist|include-cache|mentions|paginate(?:-v2)?|redirect-from|"
     r"relative-links|seo-tag|sitemap|toc|titles-from-headings|readme-index|default-layout|optional-front-matter))\b",
     r"ruby-\1"),
    (r"The minima theme could not be found", "jekyll-theme-minima"),
    (r"(?:gcc|cc|g\+\+|c\+\+|make)(?:'|:) (?:failed: )?(?:No such file|(?:command )?not found)|"
     r"command '[^']*(?:gcc|g\+\+|cc)' failed: No such file|unable to execute '[^']*g?cc'|need a C compiler|"
     r"not find (?:any )?Visual|not found: make|No acceptable C compiler|"
     r"No such file or directory: '[\w.-]*(?:gcc|g\+\+|cc|c\+\+)'|C compiler or Python headers are not installed",
     "build-essential"),
)  # fmt: skip


def _with_compiler(packages: list[str], release: Release) -> list[str]:
    """`packages`, and a compiler if the server has none: a build that lacks a header needs both."""
    from receiver.runtimes.all import RUNTIMES
    from receiver.system import apt

    if not any(name.endswith("-dev") or name == COMPILER for name in packages):
        return packages
    own = (name for runtime in RUNTIMES if runtime.name in release.runtime for name in runtime.headers)
    return [*packages, *(name for name in apt.missing([COMPILER, *own]) if name not in packages)]


# Extensions of PHP that are part of another package.
_INSIDE = {
    **dict.fromkeys(("php-dom", "php-simplexml", "php-xmlreader", "php-xmlwriter"), "php-xml"),
    "php-pdo_mysql": "php-mysql", "php-mysqli": "php-mysql", "php-pdo_pgsql": "php-pgsql", "php-pdo_sqlite": "php-sqlite3",
}  # fmt: skip


def build_advice(release: Release, lines: Iterable[str]) -> str:
    """What to write or to install after a failed build, by the newest line that we know; "" if we know none."""
    app = release.app
    said = _short(lines)
    for line in reversed(said):
        if name := missing(line):
            return (
                f"A build sees no config vars but those that shipit.yml names:  build: {{config: [{name}]}}"
                f"  (or all of them: build: {{config: all}})\nIf it is not set yet: shipit config:set {app} {name}=…"
            )
        if "File exists" in line or "EEXIST" in line:
            for _, place in release.storage:
                if re.search(rf"(?<![\w./-])(?:\./)?{re.escape(place)}(?![\w/-])", line):
                    return (
                        f"{place} is of the app's data (storage), and is there before the build begins, empty. Have the "
                        f"step go on with what is there:  mkdir -p {place}"
                    )
        if told := _of_runtimes(line):
            return told
    if packages := lacking(release, said):
        return (
            f"The server lacks a package of Debian. Write into shipit.yml:  apt: [{', '.join(packages)}]\n"
            f"An administrator allows it once, on the server: shipit apt:allow {' '.join(packages)}"
        )
    return ""


def lacking(release: Release, lines: Iterable[str]) -> list[str]:
    """The Debian packages that a build lacked, by the newest line that names one; [] if none does."""
    for line in reversed(_short(lines)):
        for pattern, package in _SYSTEM:
            if needs := [match.expand(package) for match in re.finditer(pattern, line)]:
                needed = sorted({_INSIDE.get(name, name) for name in needs})
                return _with_compiler(" ".join(needed).split(), release)
    return []
