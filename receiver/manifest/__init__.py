"""What a commit says of its app: Procfile, shipit.yml, app.json, and what its sources show."""

from __future__ import annotations

from receiver.manifest.manifest import Manifest, read_manifest
from receiver.manifest.tree import MAX_READ, Tree, subtree

__all__ = ["MAX_READ", "Manifest", "Tree", "read_manifest", "subtree"]
