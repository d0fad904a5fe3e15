"""What a commit says of its app: Procfile, shipit.yml, app.json, and what its sources show."""

from __future__ import annotations

from .manifest import BUILD_CONFIG_PREFIXES, Manifest, build_may_see, read_manifest
from .tree import MAX_READ, Tree, subtree

__all__ = ["BUILD_CONFIG_PREFIXES", "MAX_READ", "Manifest", "Tree", "build_may_see", "read_manifest", "subtree"]
