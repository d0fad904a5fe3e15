"""Which files of a directory are shipped: those that git does not ignore, changed by `artifact` in shipit.yml."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from receiver.client.directory import Directory
from receiver.errors import Rejected
from receiver.manifest import shipit_yml
from receiver.ops.all import sections

# What `shipit pack` makes.
ARTIFACTS = (".tar.gz", ".tar.zst", ".zip", ".whl", ".deb", ".rpm", ".sig")
# Never shipped, even if a glob matches: these belong to the machine, not to the project.
NEVER = frozenset({".git", "__pycache__"})


@dataclass(frozen=True)
class Selection:
    """`paths` are relative to `root`, with `/`, sorted; files and links, no directories. `new`: those that git does not
    know yet; `ignored`: those that git ignores and `artifact.include` asks for."""

    root: Path
    paths: tuple[str, ...]
    new: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    def sizes(self) -> dict[str, int]:
        """Path and bytes of each file, the largest first."""
        found = {path: (self.root / path).lstat().st_size for path in self.paths}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def select(root: Path) -> Selection:
    """The files that are shipped from a directory. Raises Rejected if there are none, or for a bad shipit.yml."""
    tree = Directory(root)
    said = shipit_yml.read(tree, sections()).artifact
    known = set(tree.paths) if said.tracked else set()
    wanted = known | set(_matching(said.include, _walk(root, "")))
    paths = sorted(wanted - set(_matching(said.exclude, wanted)))
    paths = [path for path in paths if os.path.lexists(root / path)]  # git lists removed files, too
    if not paths:
        raise Rejected(f"There is nothing to ship in {root}.", hint="See what would be: shipit deploy --list")
    ignored = frozenset(paths) - set(tree.paths)
    return Selection(root, tuple(paths), tree.uncommitted & set(paths), ignored)


def without(selection: Selection, folder: Path) -> Selection:
    """The same without the directory of artifacts: an artifact must not contain earlier ones."""
    below = os.path.relpath(folder.resolve(), selection.root.resolve()) + "/"
    made = {path for path in selection.paths if path.startswith(below) and path.endswith(ARTIFACTS)}
    paths = tuple(path for path in selection.paths if path not in made)
    return Selection(selection.root, paths, selection.new - made, selection.ignored - made)


def _matching(globs: Iterable[str], paths: Iterable[str]) -> Iterator[str]:
    """The paths that gitignore(5)'s patterns match."""
    patterns = list(globs)
    if not patterns:
        return iter(())
    import pathspec

    return iter(pathspec.GitIgnoreSpec.from_lines(patterns).match_files(paths))


def _walk(root: Path, below: str) -> Iterator[str]:
    with os.scandir(root / below) as entries:
        for entry in entries:
            path = f"{below}{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                yield path
            elif entry.name not in NEVER:
                yield from _walk(root, path + "/")
