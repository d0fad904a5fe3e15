"""What a commit says of its app in Procfile, shipit.yml and app.json. What a language adds is in runtimes/."""

from __future__ import annotations

from receiver.manifest.manifest import Manifest, Pushed, complete, read_files
from receiver.manifest.problems import Problems
from receiver.manifest.tree import MAX_READ, Tree, subtree

__all__ = ["MAX_READ", "Manifest", "Problems", "Pushed", "Tree", "complete", "read_files", "subtree"]
