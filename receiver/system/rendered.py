"""A template's text from the last time, as long as nothing that it is made of has changed.

Most releases have the units and the vhost of the one before, and Jinja takes longer to import than all else that the
agent does for them. Kept in memory (/run), root's; what cannot be read or was made of something else is made again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from receiver.names import AppName
from receiver.paths import Layout
from receiver.system import disk, render


@dataclass(frozen=True)
class Rendered:
    """The texts of one app. `render` is `plan.render.render`, with a memory."""

    layout: Layout
    app: AppName

    def render(self, name: str, /, **values: Any) -> str:
        given = json.dumps([render.sources(name), values], default=str, sort_keys=True)
        path = self.layout.rendered / self.app / f"{name.replace('/', '-')}.{values.get('type', '')}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_bytes())
            if known["given"] == given:
                return str(known["text"])
        text = render.render(name, **values)
        # A full /run is no reason not to start an app.
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk.write_atomically(path, json.dumps({"given": given, "text": text}).encode(), 0o600)
        return text

    def forget(self) -> None:
        """Remove what is kept of the app."""
        disk.remove_tree(self.layout.rendered / self.app)
