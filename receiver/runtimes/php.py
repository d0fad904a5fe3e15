"""PHP: packages by composer, served by php-fpm behind an nginx of the app's own, as PHP hosts do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from receiver.manifest import Pushed, Tree
from receiver.manifest.command import Server
from receiver.manifest.problems import reject
from receiver.model import ProcessEnv
from receiver.runtimes.base import BuildPlan, Evidence, Made, Part, Project, Runtime, Slug, Step, Suggestion

NAME, LOCK, HOME = "composer.json", "composer.lock", ".php"
RECIPE = 2
ROOTS = ("public", "web", "html", "htdocs", "")
SERVE = "serve-php"
# Heroku's two commands, with the options that name configuration for its own servers.
_HEROKU = re.compile(
    r"(?:vendor/bin/)?heroku-php-(?:apache2|nginx)(?:\s+-[A-Za-z]\s+\S+)*(?:\s+(?P<root>[\w./-]+))?\s*"
)
_RUNS = re.compile(rf"(?:^|[\s;&|/])(?:php|{SERVE}|artisan|heroku-php-\w+)\b")

# Starts php-fpm and nginx in the foreground, and ends when either does. $1: the directory to serve; $2: the file there
# that answers all other paths, index.php.
_SERVER = r"""#!/bin/bash
set -eu
root=$(realpath -e -- "${1:-.}")
index=${2:-index.php}; case $index in *[!A-Za-z0-9._-]*) echo "serve-php: $index is no name of a file" >&2; exit 2;; esac
fpm=$(ls -1 /usr/sbin/php-fpm?.? 2>/dev/null | sort -V | tail -n 1)
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cat >"$place/fpm.conf" <<END
[global]
error_log = /dev/stderr
daemonize = no
[www]
listen = $place/fpm.sock
pm = ondemand
pm.max_children = ${PHP_WORKERS:-8}
pm.process_idle_timeout = 60s
clear_env = no
catch_workers_output = yes
decorate_workers_output = no
END
# Directories that Apache would show to nobody.
shut=
while IFS= read -r -d '' file; do
    below=${file%/.htaccess}; below=${below#"$root"}
    # Not one that shuts some files alone.
    awk '{ l = tolower($0) } l ~ /^[ \t]*<(files|limit)/ { d++ } l ~ /^[ \t]*<\/(files|limit)/ { d-- }
        !d && l ~ /^[ \t]*(deny from all|require all denied)/ { shuts = 1 } END { exit !shuts }' "$file" || continue
    if [ "$below" ]; then shut="$shut location ^~ \"$below/\" { return 404; }"; fi
done < <(grep -RlisZE --include=.htaccess '^[[:space:]]*(deny from all|require all denied)' "$root" || true)
cat >"$place/nginx.conf" <<END
daemon off;
worker_processes 1;
error_log stderr warn;
pid $place/nginx.pid;
events { worker_connections 512; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log off;
    server_tokens off;
    client_max_body_size 0;
    client_body_temp_path $place/body; fastcgi_temp_path $place/fastcgi; proxy_temp_path $place/proxy;
    uwsgi_temp_path $place/uwsgi; scgi_temp_path $place/scgi;
    map \$http_x_forwarded_proto \$secure { https on; default ""; }
    server {
        listen unix:$SOCKET;
        root $root;
        index $index index.html;
        absolute_redirect off;
        location / { try_files \$uri \$uri/ /$index\$is_args\$args; }
        location ~ /\. { return 404; }
        $shut
        location ~ \.php\$ {
            try_files \$uri =404;
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME \$realpath_root\$fastcgi_script_name;
            fastcgi_param DOCUMENT_ROOT \$realpath_root;
            fastcgi_param HTTPS \$secure if_not_empty;
            fastcgi_param SERVER_NAME \$host;
            fastcgi_read_timeout 3600s;
            fastcgi_pass unix:$place/fpm.sock;
        }
    }
}
END
rm -f "$SOCKET"
# Its standard error of a file that it may open again, which that of a service is not.
"$fpm" --nodaemonize --fpm-config "$place/fpm.conf" -O 2> >(cat >&2) & fpm_pid=$!
until [ -S "$place/fpm.sock" ]; do kill -0 $fpm_pid; sleep 0.02; done
/usr/sbin/nginx -e stderr -c "$place/nginx.conf" & nginx_pid=$!
ask() { kill -QUIT $nginx_pid 2>/dev/null || true; }
trap ask TERM INT
code=0; wait -n $fpm_pid $nginx_pid || code=$?
if kill -0 $nginx_pid 2>/dev/null; then ask; wait $nginx_pid || true; fi
kill -QUIT $fpm_pid 2>/dev/null || true; wait $fpm_pid || true
[ $code -lt 128 ] && exit $code || exit 0
"""
_MAKE = """
fpm=$(ls -1 /usr/sbin/php-fpm?.? 2>/dev/null | sort -V | tail -n 1)
[ -x "$fpm" ] && [ -x /usr/bin/php ] || {
    echo "PHP is not on this server. Its administrator types:  apt install php-cli php-fpm" >&2
    echo "(php-fpm alone serves nothing by itself: its own service can be masked.)" >&2; exit 1; }
mkdir -p .php/bin && printf %s "$1" >.php/bin/serve-php && chmod +x .php/bin/serve-php
echo "PHP $(php -r 'echo PHP_VERSION;')"
"""
_EXTENSIONS = """
for name; do
    php -m | grep -qix -- "$name" || { echo "PHP extension ext-$name is missing" >&2; code=1; }
done
exit ${code:-0}
"""
# $1 is empty if nothing shows that the program uses composer's packages.
_INSTALL = """
command -v composer >/dev/null || [ "$1" ] || {
    echo "composer is not on this server (apt install composer unzip). Going on without: nothing here uses vendor/."; exit 0; }
command -v composer >/dev/null || {
    echo "composer is not on this server. Its administrator types:  apt install composer unzip" >&2; exit 1; }
exec composer install --no-dev --no-interaction --no-progress --prefer-dist --optimize-autoloader --no-ansi
"""

# Placeholder files in directories that are otherwise empty; and directories that the running program does not use.
_PLACEHOLDER = re.compile(r"\.gitkeep|\.keep|\.placeholder|_dummy|\.gitignore|\.htaccess")
_NOT_DATA = re.compile(r"(?:_?tests?|docs?|vendor|node_modules|examples?)(?:/|$)|\.")
_WAY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
DEEPEST, MOST_PLACES = 5, 40


class PHP(Runtime):
    """Projects with a composer.json or an index.php to serve."""

    name = "php"
    makes = (HOME,)
    reads = (NAME, LOCK)

    def finds(self, pushed: Pushed) -> Evidence | None:
        tree = pushed.tree
        root = served(tree)
        lines = pushed.procfile.processes.values() if pushed.procfile else ()
        runs = any(_RUNS.search(line.command) for line in lines)
        if NAME not in tree.files() and root is None and not runs:
            return Evidence(_alone(tree), weak=True) if _alone(tree) else None
        what = NAME if NAME in tree.files() else f"{root}/index.php".lstrip("/") if root is not None else "the Procfile"
        return Evidence(what, weak=not runs and (root is None or bool(pushed.procfile)))

    def plan(self, project: Project) -> BuildPlan:
        wish = project.manifest.version(self.name)
        step = Step("Making PHP ready", ("/bin/sh", "-c", _MAKE, "sh", _SERVER))
        made = Made(HOME, hashlib.sha256(f"{RECIPE} {_SERVER}".encode()).hexdigest(), (step,))
        files = project.tree.files()
        steps: tuple[Step, ...] = ()
        wanted = composer(project.tree).get("require")
        names = [name for name in wanted if isinstance(name, str)] if isinstance(wanted, dict) else []
        if NAME in files and "vendor/autoload.php" not in files and any("/" in name for name in names):
            environment = {
                "COMPOSER_HOME": str(project.cache / "composer"),
                "COMPOSER_CACHE_DIR": str(project.cache / "composer/cache"),
            }
            told = f"Installing from {LOCK if LOCK in files else NAME + ', which no lock file pins'}"
            steps = (Step(told, ("/bin/sh", "-c", _INSTALL, "sh", _used(project.tree)), environment),)
        elif extensions := [name[4:] for name in names if re.fullmatch(r"ext-\w+", name)]:
            steps = (Step("Looking for PHP's extensions", ("/bin/sh", "-c", _EXTENSIONS, "sh", *extensions)),)
        if "artisan" in files and "vendor/autoload.php" in files:
            # composer's scripts did not run: Laravel needs a file that lists its packages, and a release is read-only.
            # If this fails because the app wants its database, go on without.
            words = ("/bin/sh", "-c", "php artisan package:discover || echo 'It did not: going on.'")
            steps += (Step("Having Laravel find its packages", words),)
        return BuildPlan(f"php {wish}".rstrip(), {}, (made,), steps)

    def version(self, pushed: Pushed) -> str:
        wished = composer(pushed.tree).get("require")
        said = wished.get("php") if isinstance(wished, dict) else None
        # composer checks it against the server's version when it installs.
        return super().version(pushed) or (said if isinstance(said, str) and len(said) < 40 else "")

    def process(self, project: Project) -> ProcessEnv:
        return ProcessEnv(path=(f"{HOME}/bin", "vendor/bin"))

    def storage(self, pushed: Pushed) -> tuple[tuple[str, str], ...]:
        # Laravel's own: sessions, compiled views, a log, uploads.
        if "artisan" not in pushed.tree.files():
            return tuple((place, place) for place in _kept_open(pushed.tree))
        return tuple(
            (place, place)
            for place in ("storage/app", "storage/framework/cache/data", "storage/framework/sessions",
                          "storage/framework/views", "storage/logs")
        )  # fmt: skip

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        root = served(pushed.tree)
        if root is None and (file := _alone(pushed.tree)):
            command = f"{SERVE} . {file}"
            return Suggestion(f"No Procfile: {file} is the only PHP file at the top, so `web: {command}`.", web=command)
        if root is None:
            return None
        command = f"{SERVE} {root or '.'}"
        where = f"{root}/index.php".lstrip("/")
        return Suggestion(f"No Procfile: there is {where}, so `web: {command}` (php-fpm and nginx).", web=command)

    def parts(self, slug: Slug) -> Iterator[Part]:
        try:
            said = json.loads(slug.read("vendor/composer/installed.json", 2**24) or b"{}")
        except (ValueError, RecursionError):
            return
        packages = said.get("packages") if isinstance(said, dict) else said
        for one in packages if isinstance(packages, list) else ():
            name, version = (one.get(key) for key in ("name", "version")) if isinstance(one, dict) else (None, None)
            if isinstance(name, str) and isinstance(version, str):
                licenses = one.get("license")
                first = licenses[0] if isinstance(licenses, list) and len(licenses) == 1 else ""
                yield Part("composer", name, version.removeprefix("v"), first if isinstance(first, str) else "")

    def example(self, pushed: Pushed) -> str:
        return f"web: {SERVE} public"

    def server(self, command: str, pushed: Pushed) -> Server | None:
        return Server(SERVE) if command.split()[:1] == [SERVE] else None

    def command(self, command: str) -> tuple[str, str]:
        match = _HEROKU.fullmatch(command)
        return (f"{SERVE} {(match['root'] or '.').rstrip('/') or '.'}", command.split()[0]) if match else (command, "")

    def notices(self, pushed: Pushed) -> list[str]:
        if any(path.rpartition("/")[2] == ".htaccess" for path in pushed.tree.files()):
            return [
                "Of .htaccess only what shuts a directory counts; nginx serves here: what is no file goes to index.php."
            ]
        return []


def served(tree: Tree) -> str | None:
    """The directory whose index.php answers; None if there is none."""
    files = tree.files()
    return next((root for root in ROOTS if f"{root}/index.php".lstrip("/") in files), None)


def _alone(tree: Tree) -> str:
    """The only PHP file of a project, if it is at the top; otherwise ""."""
    top = [
        path for path in tree.files() if path.endswith(".php") and "/" not in path and re.fullmatch(r"[\w.-]+", path)
    ]
    named = [path for path in top if not re.search(r"config|sample|example|test", path)]
    return named[0] if len(named) == 1 else ""


def _kept_open(tree: Tree) -> list[str]:
    """The topmost directories that the commit keeps empty, for files that the program will write. git keeps no empty
    directory, so each has a placeholder file."""
    full: set[str] = set()
    every: set[str] = set()
    for path in tree.files():
        above = path.split("/")[:-1][:DEEPEST]
        ways = {"/".join(above[: depth + 1]) for depth in range(len(above))}
        every |= ways
        if not _PLACEHOLDER.fullmatch(path.rpartition("/")[2]):
            full |= ways
    found = sorted(way for way in every - full if "/" not in way or way.rpartition("/")[0] in full)
    return [way for way in found if _WAY.fullmatch(way) and not _NOT_DATA.match(way)][:MOST_PLACES]


def _used(tree: Tree) -> str:
    """The file that shows that packages have to be installed: a lock file, or an index.php that loads them. "" if there
    is none: some programs bring all they need, and have a composer.json only for use as a package."""
    if LOCK in tree.files():
        return LOCK
    root = served(tree)
    index = tree.read(f"{root}/index.php".lstrip("/")) if root is not None else b""
    return "index.php" if index is None or root or re.search(rb"vendor/|autoload", index) else ""


def composer(tree: Tree) -> dict[str, Any]:
    raw = tree.read(NAME)
    if raw is None:
        return {}
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise reject(f"{NAME}{line}", "This is not JSON.") from error
    return data if isinstance(data, dict) else {}
