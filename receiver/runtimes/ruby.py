"""Ruby: gems from Gemfile.lock, Rails' assets, Rack apps with a config.ru."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from receiver.manifest import Problems, Pushed, Tree
from receiver.model import ProcessEnv
from receiver.runtimes.base import BuildPlan, Evidence, Made, Part, Project, Runtime, Slug, Step, Suggestion, stamp

NAME, LOCK = "Gemfile", "Gemfile.lock"
RUBY, GEMS = ".ruby", ".gems"
SYSTEM = "/usr/bin/ruby"
RECIPE = 1
_RUNS = re.compile(r"(?:^|[\s;&|/])(?:bundle|rails|rake|puma|rackup|ruby|unicorn|sidekiq|thin|falcon)\b")
_SAYS = re.compile(r"""^[ \t]*ruby\s+(?:['"]\s*(?:~>|>=|=)?\s*)([0-9]+(?:\.[0-9]+){0,2})""", re.MULTILINE)
_LOCKED = re.compile(r"^RUBY VERSION\s+ruby ([0-9]+\.[0-9]+\.[0-9]+)", re.MULTILINE)

# The first Ruby that is of the wanted version: the server's own, or one that an administrator has put into /opt/rubies.
_MAKE = """
wish=$1; mkdir -p .ruby/bin
for ruby in /usr/bin/ruby $(ls -d /opt/rubies/*"$wish"*/bin/ruby 2>/dev/null); do
    have=$("$ruby" -e 'print RUBY_VERSION' 2>/dev/null) || continue
    case $have. in "$wish".*|"$wish"*) ;; *) seen="$seen $have"; continue ;; esac
    [ -x "${ruby%/*}/bundle" ] || { echo "Ruby $have has no bundler:  apt install ruby-bundler" >&2; exit 1; }
    for name in ruby bundle gem rake irb; do
        if [ -x "${ruby%/*}/$name" ]; then ln -sf "${ruby%/*}/$name" .ruby/bin/; fi
    done
    echo "Ruby $have"; exit
done
echo "Ruby $wish is not on this server (it has:${seen:- none})." >&2
echo "An administrator installs Debian's:  apt install ruby ruby-bundler ruby-dev build-essential" >&2
echo "or another one into /opt/rubies/ruby-$wish; or the Gemfile and .ruby-version want the one that is there." >&2
exit 1
"""
# A gem in a lock file: its name, its version, and its platform.
_GEM = re.compile(
    r"^    ([A-Za-z0-9][A-Za-z0-9._-]{0,99}) \(([0-9][A-Za-z0-9.]{0,60})(?:-([A-Za-z0-9._-]{1,60}))?\)$", re.MULTILINE
)
# Gems that make pages: if a build uses one, that is what the project's gems are for.
_PAGES = re.compile(r"^    (?:jekyll|github-pages|middleman|nanoc|bridgetown) \(", re.MULTILINE)
# A program in one file that uses Sinatra: the server starts when the file has been read.
_SINATRA = re.compile(r"""^[ \t]*require[ (]+['"]sinatra['"]""", re.MULTILINE)
_USUAL, MOST_PROGRAMS = ("app.rb", "server.rb"), 40  # the most files that are read
_LACKING = re.compile(r"cannot load such file -- ([a-z]\w{1,40}(?:/\w{1,40})?) \(LoadError\)")
_INSTALL = 'bundle install && mkdir -p "$BUNDLE_PATH"'


class Ruby(Runtime):
    """Projects with a Gemfile that something uses, a config.ru, or a Sinatra program."""

    name = "ruby"
    makes = (RUBY, GEMS)
    reads = (NAME, LOCK, ".ruby-version", "config.ru")
    headers = ("ruby-dev",)

    def finds(self, pushed: Pushed) -> Evidence | None:
        files = pushed.tree.files()
        lines = pushed.procfile.processes.values() if pushed.procfile else ()
        runs = any(_RUNS.search(line.command) for line in lines)
        if NAME not in files:
            # A program that needs only the server's own gems.
            alone = "config.ru" if "config.ru" in files else _sinatra(pushed.tree)
            return Evidence(alone) if alone and (runs or not pushed.procfile) else None
        used = "config.ru" in files or bool(_sinatra(pushed.tree)) or runs
        used = used or _PAGES.search(_text(pushed.tree, LOCK)) is not None
        # A Gemfile that is only for a developer's tool is no reason to install anything.
        return Evidence(LOCK if LOCK in files else NAME, weak=not used)

    def check(self, pushed: Pushed, problems: Problems) -> None:
        found, files = self.finds(pushed), pushed.tree.files()
        if found and not found.weak and NAME in files and LOCK not in files:
            problems.add(NAME, f"There is a {NAME} but no {LOCK}.", f"bundle lock; git add {LOCK}")

    def version(self, pushed: Pushed) -> str:
        if wished := super().version(pushed):
            return wished
        tree = pushed.tree
        file = re.match(r"(?:ruby-)?([0-9]+(?:\.[0-9]+){0,2})", _text(tree, ".ruby-version"))
        said = file or _SAYS.search(_text(tree, NAME)) or _LOCKED.search(_text(tree, LOCK))
        return said[1] if said else ""

    def plan(self, project: Project) -> BuildPlan:
        tree, wish = project.tree, project.manifest.version(self.name)
        facts = [RECIPE, wish, stamp(SYSTEM)]
        make = Step("Finding Ruby", ("/bin/sh", "-c", _MAKE, "sh", wish))
        key = hashlib.sha256(repr(facts).encode()).hexdigest()
        blobs = [tree.files().get(name, "") for name in (NAME, LOCK)]
        # Gems from a directory of the project, or from git, are not determined by these files alone.
        closed = not re.search(r"^PATH$", _text(tree, LOCK), re.MULTILINE) and "eval_gemfile" not in _text(tree, NAME)
        gems = hashlib.sha256(repr([facts, blobs]).encode()).hexdigest() if closed else ""
        install = Step(f"Installing from {LOCK}", ("/bin/sh", "-c", _INSTALL))
        environment = {
            "BUNDLE_APP_CONFIG": f"{project.slug}/{GEMS}/config", "BUNDLE_DEPLOYMENT": "1", "BUNDLE_JOBS": "2",
            "BUNDLE_PATH": f"{project.slug}/{GEMS}", "BUNDLE_USER_HOME": str(project.cache / "bundle"),
            "BUNDLE_WITHOUT": "development:test", "RACK_ENV": "production", "RAILS_ENV": "production",
        }  # fmt: skip
        steps: tuple[Step, ...] = ()
        if is_rails(tree) and re.search(r"^    (?:sprockets|propshaft)[- ]", _text(tree, LOCK), re.MULTILINE):
            words = ("bundle", "exec", "rails", "assets:precompile")
            steps = (Step("Precompiling assets", words, {"SECRET_KEY_BASE_DUMMY": "1"}),)
        made: tuple[Made, ...] = (Made(RUBY, key, (make,)),)
        if NAME in tree.files():
            made += (Made(GEMS, gems, (install,)),)
        return BuildPlan(f"ruby {wish}".rstrip(), environment, made, steps)

    def process(self, project: Project) -> ProcessEnv:
        return ProcessEnv(
            path=(f"{RUBY}/bin", "bin"),
            variables=(
                ("BUNDLE_APP_CONFIG", f"$SLUG/{GEMS}/config"), ("BUNDLE_DEPLOYMENT", "1"),
                ("BUNDLE_PATH", f"$SLUG/{GEMS}"), ("BUNDLE_WITHOUT", "development:test"), ("MALLOC_ARENA_MAX", "2"),
                ("RACK_ENV", "production"), ("RAILS_ENV", "production"), ("RAILS_LOG_TO_STDOUT", "enabled"),
                ("RAILS_SERVE_STATIC_FILES", "enabled"),
            ),
        )  # fmt: skip

    def storage(self, pushed: Pushed) -> tuple[tuple[str, str], ...]:
        # Rails itself writes there: process ids, caches, a log, uploaded files.
        return (("rails/log", "log"), ("storage", "storage"), ("rails/tmp", "tmp")) if is_rails(pushed.tree) else ()

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        tree = pushed.tree
        bundled = "bundle exec " if NAME in tree.files() else ""
        if "config.ru" not in tree.files():
            program = _sinatra(tree)
            command = f"{bundled}ruby {program} -o 127.0.0.1 -p $PORT"
            told = f"No Procfile: {program} is a program of Sinatra, so `web: {command}`."
            return Suggestion(told, web=command) if program else None
        has_puma = re.search(r"^    puma \(", _text(pushed.tree, LOCK), re.MULTILINE) is not None
        command = "bundle exec puma -b unix://$SOCKET" if has_puma else f"{bundled}rackup -o 127.0.0.1 -p $PORT"
        if has_puma and "config/puma.rb" in pushed.tree.files():
            # This file reads $PORT, and has further settings of the app.
            command = "bundle exec puma -C config/puma.rb"
        return Suggestion(f"No Procfile: there is a config.ru, so `web: {command}`.", web=command)

    def advice(self, line: str) -> str:
        found = _LACKING.search(line)
        if not found:
            return ""
        return (
            f"Nothing that was installed has {found[1]}. Name its gem in the Gemfile and commit the lock (bundle lock); or, "
            f"without a Gemfile, have Debian's, in shipit.yml:  apt: [ruby-{found[1].split('/')[0].replace('_', '-')}]"
        )

    def parts(self, slug: Slug) -> Iterator[Part]:
        # A build installs what the lock file says (BUNDLE_DEPLOYMENT); without GEMS nothing was installed.
        lock = slug.read(LOCK, 2**20).decode(errors="replace") if GEMS in slug.names("") else ""
        for name, version, platform in _GEM.findall(lock):
            yield Part("gem", name, version, more=(("platform", platform),) if platform else ())

    def example(self, pushed: Pushed) -> str:
        return "web: bundle exec puma -p $PORT"


def _sinatra(tree: Tree) -> str:
    """The program at the top that starts a Sinatra server, "" if there is none, or several."""
    top = sorted(path for path in tree.files() if re.fullmatch(r"[\w-]+\.rb", path))
    top.sort(key=lambda path: path not in _USUAL)
    found = [path for path in top[:MOST_PROGRAMS] if _SINATRA.search(_text(tree, path))]
    return found[0] if len(found) == 1 else next((path for path in _USUAL if path in found), "")


def is_rails(tree: Tree) -> bool:
    return "config/application.rb" in tree.files()


def _text(tree: Tree, name: str) -> str:
    return (tree.read(name) or b"").decode(errors="replace")
