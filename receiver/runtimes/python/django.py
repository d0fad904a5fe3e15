"""What a push needs to know from a Django project's settings, read as text and never run."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from receiver.manifest import Pushed, Tree
from receiver.names import ConfigKey
from receiver.runtimes.base import Asked, Project, Step, Suggestion
from receiver.runtimes.python import asked
from receiver.runtimes.python.project import packages

MAX_SETTINGS = 20  # how many settings files are read
_STATIC_ROOT = re.compile(rb"^[ \t]*STATIC_ROOT\s*=\s*(?!None\b|['\"]{2})", re.MULTILINE)
_BESIDE = re.compile(
    rb"""(?:BASE_DIR|ROOT_DIR|PROJECT_DIR|APPS_DIR|ROOT)\s*(?:/|,|\+|\))\s*(?:\(\s*)?["']/?([\w./-]+\.(?:sqlite3?|db))["']"""
)
_MEDIA = re.compile(
    rb"""^[ \t]*MEDIA_ROOT\s*=[^\n]{0,200}?(?:BASE_DIR|ROOT_DIR|PROJECT_DIR|APPS_DIR)\W[^\n]{0,200}?["']/?([\w./-]{1,200}?)/?["']""",
    re.MULTILINE,
)
_SETTINGS = re.compile(r"(?:.*/)?(?:settings(?:/[\w/]+|\w*)?|\w*settings|config/\w+)\.py")
# Files that are not the settings of a server.
_OTHERS = re.compile(r"(?:^|/)(?:test|tests|local|dev|development|ci)\w*\.py$|(?:^|/)tests?/")
# Settings that may lead to a database server, which others may use, too.
_ELSEWHERE = re.compile(
    rb"postgres|mysql|mariadb|oracle|mssql|cockroach|DATABASE_URL|dj_database_url|\benv\.db|environ\.Env", re.IGNORECASE
)
_DATABASES = re.compile(rb"^DATABASES\b.{0,4000}?(?:^\}|\Z)", re.MULTILINE | re.DOTALL)
_ASKS = re.compile(rb"environ|getenv|\bconfig\(|\benv\W")
DISABLED = "Collecting no static files: DISABLE_COLLECTSTATIC is set"
NOWHERE = "No static files are collected: with this environment, settings have no STATIC_ROOT."
# $1 is manage.py. No build has the secrets: each further word is a variable that gets a made-up value if it is not set.
_COLLECT = f"""
if [ "${{DISABLE_COLLECTSTATIC:-0}}" != 0 ]; then echo "{DISABLED}"; exit; fi
manage=$1; shift
for name do [ -n "$(printenv "$name")" ] || export "$name=of-this-build-alone"; done
said=.collectstatic-said
python "$manage" collectstatic --noinput 2>"$said"; code=$?
cat "$said" >&2
if [ $code != 0 ] && grep -q "without having set the STATIC_ROOT" "$said"; then
    echo "{NOWHERE}"; code=0
fi
rm -f "$said"; exit $code
"""


@dataclass(frozen=True)
class Django:
    """`manage`: the path of manage.py. `collects`: its settings say where static files are collected. `database`: its
    SQLite file beside the code, `shared`: its settings may lead to another database, `media` its directory of uploads there; "" = none. `hosts` and `secrets`: the variables
    from which ALLOWED_HOSTS and SECRET_KEY are read (asked.py)."""

    manage: str
    collects: bool = False
    database: str = ""
    shared: bool = False
    media: str = ""
    hosts: tuple[ConfigKey, ...] = ()
    secrets: tuple[ConfigKey, ...] = ()


def find(tree: Tree) -> Django | None:
    """The Django project of a tree, with manage.py at the top or one directory below it."""
    files = tree.files()
    manage = sorted((p for p in files if p.rpartition("/")[2] == "manage.py" and p.count("/") <= 1), key=len)
    if not manage or b"django" not in (tree.read(manage[0]) or b"").lower():
        return None
    base = manage[0].rpartition("manage.py")[0]
    names = [path for path in files if path.startswith(base) and path.count("/") < 5 and _SETTINGS.fullmatch(path)]
    texts = [tree.read(path) or b"" for path in sorted(names, key=len)[:MAX_SETTINGS] if not _OTHERS.search(path)]
    beside = next((m for text in texts if b"sqlite3" in text and (m := _BESIDE.search(text))), None)
    media = next((m for text in texts if (m := _MEDIA.search(text))), None)
    return Django(
        manage[0],
        any(_STATIC_ROOT.search(text) for text in texts),
        base + beside[1].decode() if beside else "",
        any(_ELSEWHERE.search(text) or any(_ASKS.search(m[0]) for m in _DATABASES.finditer(text)) for text in texts),
        base + media[1].decode() if media else "",
        asked.hosts(texts),
        asked.secrets(texts),
    )


def with_tables(pushed: Pushed, suggested: Suggestion) -> Suggestion:
    """The same with the release command that makes the tables, where the database is a file of the app's own data.

    Any other database may be someone else's, too, who says when it is changed.
    """
    found = find(pushed.tree)
    if not found or not found.database or found.shared or pushed.settings.release:
        return suggested
    command = f"python {found.manage} migrate --noinput"
    notice = f"{suggested.notice} Its database is {found.database}, so `release: {command}`."
    return replace(suggested, notice=notice, release=command)


def steps(project: Project) -> tuple[Step, ...]:
    """The step that collects its static files, as Heroku does, if its settings say where to."""
    found = find(project.tree)
    if not found or not found.collects or "collectstatic" in project.manifest.build_command:
        return ()
    hook = (project.tree.read("bin/post_compile") or b"") + (project.tree.read("bin/pre_compile") or b"")
    if b"collectstatic" in hook:
        return ()
    return (Step("Collecting static files", ("/bin/sh", "-c", _COLLECT, "sh", found.manage, *found.secrets)),)


def asks(pushed: Pushed) -> Asked:
    """Any host will do for ALLOWED_HOSTS: nginx passes on only requests for the app's own names."""
    found = find(pushed.tree)
    return Asked(tuple((key, "*") for key in found.hosts), found.secrets) if found else Asked()


def loose(pushed: Pushed) -> list[str]:
    """What its settings put beside the code, and shipit.yml does not keep (`storage`)."""
    found = find(pushed.tree)
    places = {place for _, place in pushed.settings.storage}
    paths = (found.database, found.media) if found else ()
    return [path for path in paths if path and not _covered(path, places)]


def notices(pushed: Pushed) -> list[str]:
    """What will not work in a release, which is read-only and has no other web server for files."""
    found = find(pushed.tree)
    if not found:
        return []
    told = []
    if beside := loose(pushed):
        what = " and ".join(f"{'the database' if path == found.database else 'MEDIA_ROOT'} ({path})" for path in beside)
        told.append(
            f"Settings put {what} beside the code, which is read-only and does not stay: of the app's data that is, as with "
            f"storage: [{', '.join(beside)}] in shipit.yml."
        )
    needed = {name.partition("[")[0] for name in packages(pushed.tree)}
    served = pushed.settings.serving.assets
    if (
        found.collects
        and needed
        and not served
        and not needed & {"whitenoise", "django-storages", "dj-static", "servestatic"}
    ):
        told.append(
            "Static files are collected, and nothing serves them: add whitenoise to the requirements and MIDDLEWARE, or "
            "write into shipit.yml, with the directory of STATIC_ROOT:  static: {/static: staticfiles}"
        )
    return told


def _covered(path: str, places: set[str]) -> bool:
    return any(f"{path}/".startswith(f"{place}/") for place in places)
