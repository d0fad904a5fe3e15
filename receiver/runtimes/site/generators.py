"""The generators of pages that are recognised by their own configuration: one table. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from receiver.manifest import Tree

_JEKYLL = r"^    (?:jekyll|github-pages) \("


@dataclass(frozen=True)
class Generator:
    """`files`: its configuration; the first that exists is used. `says`: a pattern that this file must match. `beside`:
    one of these files or directories (with a / at the end) must exist, too; () = none is needed.

    `docs`: it often makes only the manual of a program, so it counts only if nothing else can be run. `package`: the
    program on PyPI that makes the pages, "" = it is not from PyPI. `known`: modules, themes or plugins that its
    configuration may name → their packages on PyPI.
    """

    name: str
    files: tuple[str, ...]
    says: str = ""
    beside: tuple[str, ...] = ()
    docs: bool = False
    package: str = ""
    known: Mapping[str, str] | None = None


_SPHINX = (
    "sphinx_rtd_theme", "furo", "pydata_sphinx_theme", "sphinx_book_theme", "sphinx_material", "myst_parser", "nbsphinx",
    "myst_nb", "sphinx_copybutton", "sphinx_design", "sphinx_tabs", "sphinx_inline_tabs", "sphinx_autodoc_typehints",
    "numpydoc", "recommonmark", "sphinxcontrib.mermaid", "sphinxcontrib.httpdomain", "sphinxcontrib.spelling",
    "sphinx_sitemap", "sphinxext.opengraph", "sphinx_click", "sphinx_immaterial",
)  # fmt: skip
_MKDOCS = {
    "material": "mkdocs-material", "awesome-pages": "mkdocs-awesome-pages-plugin", "macros": "mkdocs-macros-plugin",
    "git-revision-date-localized": "mkdocs-git-revision-date-localized-plugin", "minify": "mkdocs-minify-plugin",
    "mkdocstrings": "mkdocstrings_python", "redirects": "mkdocs-redirects", "gen-files": "mkdocs-gen-files",
    "literate-nav": "mkdocs-literate-nav", "section-index": "mkdocs-section-index", "glightbox": "mkdocs-glightbox",
    "mermaid2": "mkdocs-mermaid2-plugin", "mkdocs-jupyter": "mkdocs-jupyter", "windmill": "mkdocs-windmill",
    "rss": "mkdocs-rss-plugin", "include-markdown": "mkdocs-include-markdown-plugin",
    "pymdownx": "pymdown-extensions",
}  # fmt: skip

GENERATORS = (
    Generator("hugo", ("hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json", "config/_default/hugo.toml",
                       "config/_default/hugo.yaml")),
    # Older versions of Hugo used file names that other programs use, too.
    Generator("hugo", ("config.toml", "config.yaml", "config.yml", "config.json", "config/_default/config.toml",
                       "config/_default/config.yaml"),
              says=r"""(?im)^[ \t{]*["']?(?:baseurl|languagecode)\b""", beside=("content/", "themes/", "layouts/", "archetypes/")),
    # Many projects have this file only for the theme of their README.
    Generator("jekyll", ("_config.yml", "_config.yaml", "_config.toml"),
              beside=("_posts/", "_layouts/", "_includes/", "_sass/", "_data/", "_pages/", "_docs/", "index.md",
                      "index.markdown")),
    Generator("pelican", ("pelicanconf.py",), package="pelican[markdown]", known={}),
    Generator("mkdocs", ("mkdocs.yml", "mkdocs.yaml"), docs=True, package="mkdocs", known=_MKDOCS),
    Generator("sphinx", ("docs/conf.py", "docs/source/conf.py", "doc/conf.py", "doc/source/conf.py", "source/conf.py",
                         "conf.py"),
              says=r"(?m)^(?:extensions|html_theme|project|master_doc|root_doc)[ \t]*(?::[^=\n]{0,200})?=", docs=True, package="sphinx",
              known={name: name.replace("_", "-").replace(".", "-") for name in _SPHINX}),
)  # fmt: skip


def find(tree: Tree) -> tuple[Generator, str] | None:
    """The generator of a project's pages, and the file that shows it; None if there is none."""
    files = tree.files()
    for one in GENERATORS:
        for file in one.files:
            if file in files and re.search(one.says, text(tree, file)) and _has(tree, one.beside):
                return one, file
    return None


def _has(tree: Tree, beside: tuple[str, ...]) -> bool:
    files = tree.files()
    ways = tuple(name for name in beside if name.endswith("/"))
    return not beside or any(name in files for name in beside) or any(path.startswith(ways) for path in files)


def text(tree: Tree, path: str) -> str:
    return (tree.read(path) or b"").decode(errors="replace")


def locked_jekyll(tree: Tree) -> bool:
    """Whether Gemfile.lock has the Jekyll to use; else it is the server's own."""
    return re.search(_JEKYLL, text(tree, "Gemfile.lock"), re.MULTILINE) is not None


def named(tree: Tree, one: Generator, file: str) -> list[str]:
    """The PyPI packages for what a generator's configuration names, as far as they are known."""
    said = text(tree, file)
    known = (one.known or {}).items()
    return [package for name, package in known if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", said)]


# Where a project says which Hugo builds it: a version manager's file, or a variable in the configuration of the service
# or workflow that has published it so far.
_HUGO_FILES = re.compile(
    r"\.hugo-?version|netlify\.toml|vercel\.json|\.gitlab-ci\.yml|\.github/workflows/[\w.-]+\.ya?ml"
)
_HUGO_SAID = re.compile(r"""HUGO_VERSION["']?\s*[:=]\s*["']?v?([0-9]+\.[0-9]+(?:\.[0-9]+)?)""")


def hugo_version(tree: Tree) -> str:
    """The Hugo that a project wants, "" = any."""
    for path in sorted(path for path in tree.files() if _HUGO_FILES.fullmatch(path)):
        said = text(tree, path)
        found = re.match(r"v?([0-9]+\.[0-9]+(?:\.[0-9]+)?)\s*$", said) or _HUGO_SAID.search(said)
        if found:
            return found[1]
    return ""
