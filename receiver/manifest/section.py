"""A section of shipit.yml that the manifest knows nothing of but its place: an operational capability's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from receiver.manifest.document import Document
from receiver.manifest.problems import Problems
from receiver.model import ProcessType


@dataclass(frozen=True)
class Said:
    """What shipit.yml says below one key; `data` fits the section's schema. Keys that begin with x- are still there."""

    key: str
    document: Document
    problems: Problems

    @property
    def data(self) -> Any:
        return self.document.data[self.key]

    def text(self, *path: str | int) -> str:
        """A scalar as it was written: `1.10`, where `data` has 1.1."""
        whole = (self.key, *path)
        return self.document.texts[whole]

    def wrong(self, message: str, *path: str | int, hint: str = "") -> None:
        """Tell a mistake at the part `path` of the section: the push is refused with it and all others."""
        self.problems.add(self.document.at((self.key, *path)), message, hint)


class Section(Protocol):
    """`key` in shipit.yml, and the JSON Schema of what stands below it."""

    @property
    def key(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, Any]: ...

    def read(self, said: Said) -> Any:
        """What the release's record keeps (JSON, an object), or None. Pure."""

    def processes(self, kept: Any) -> tuple[ProcessType, ...]:
        """What has to run for what is kept, besides the app's own process types: one of each, or by the clock. Pure."""
