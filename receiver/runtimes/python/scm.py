"""Projects that take their version from git: a build has no repository, so variables give it git's answer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from receiver.errors import Rejected
from receiver.manifest import toml
from receiver.runtimes.base import Project

# Packages that ask git for a version, and the variable that overrides it; * stands for the project's name.
_ASKS = {
    "setuptools-scm": "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_*",
    "setuptools_scm": "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_*",
    # No variable per project; for packages built from a source archive, the version is written in it.
    "hatch-vcs": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "flit_scm": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "pdm-backend": "PDM_BUILD_SCM_VERSION",
    "poetry-dynamic-versioning": "POETRY_DYNAMIC_VERSIONING_BYPASS",
    "versioningit": "VERSIONINGIT_FOR_*",
    "pbr": "PBR_VERSION",
}
_DESCRIBED = re.compile(r"(?:(?P<tag>.+)-)?(?P<count>[0-9]+)-g(?P<commit>[0-9a-f]+)", re.ASCII)
_TAG = re.compile(r"(?:.*[-/_])?v?(?P<version>[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc|\.post)[0-9]+)?)", re.ASCII)


def environment(project: Project) -> Mapping[str, str]:
    """The variables that tell the build its version; {} for a project that does not ask git."""
    text = _build_system(project)
    asked = [variable for package, variable in _ASKS.items() if re.search(rf"(?<![\w-]){package}(?![\w-])", text)]
    if not asked:
        return {}
    version = version_of(project.described())
    if not version:
        return {}
    name = re.sub(r"[-_.]+", "_", _name(project)).upper()
    if not name:
        asked = [variable.removesuffix("_FOR_*") for variable in asked]
    return {variable.replace("*", name): version for variable in asked}


def version_of(described: str) -> str:
    """As setuptools-scm writes it: the tag, or the next version's `.devN+gCOMMIT`; "" if it is not known."""
    match = _DESCRIBED.fullmatch(described)
    if not match:
        return ""
    tag = _TAG.fullmatch(match["tag"] or "0.0")
    if not tag:
        return ""
    if match["tag"] and match["count"] == "0":
        return tag["version"]
    numbers = re.match(r"[0-9.]*[0-9]", tag["version"])
    assert numbers is not None
    *front, last = numbers[0].split(".")
    # A pre-release already has the number of the coming version.
    following = ".".join([*front, str(int(last) + (numbers[0] == tag["version"]))])
    return f"{following}.dev{match['count']}+g{match['commit'][:9]}"


def _build_system(project: Project) -> str:
    """Where a project names what builds it."""
    found = []
    try:
        data = toml.read(project.tree, "pyproject.toml")
        found += [str(word) for word in data.get("build-system", {}).get("requires", [])]
    except (Rejected, AttributeError, TypeError):
        pass
    found += [(project.tree.read(name) or b"").decode(errors="replace") for name in ("setup.py", "setup.cfg")]
    return "\n".join(found)


def _name(project: Project) -> str:
    try:
        name = toml.table(toml.read(project.tree, "pyproject.toml"), "project").get("name")
    except Rejected:
        name = None
    if isinstance(name, str):
        return name
    for file, pattern in (("setup.cfg", rb"^name\s*=\s*([\w.-]+)"), ("setup.py", rb"name\s*=\s*['\"]([\w.-]+)['\"]")):
        if match := re.search(pattern, project.tree.read(file) or b"", re.MULTILINE):
            return match[1].decode()
    return ""
