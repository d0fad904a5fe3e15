"""A section of shipit.yml that belongs to an operational capability; the manifest knows only its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from receiver.manifest.document import Document
from receiver.manifest.problems import Problems
from receiver.model import ProcessType


@dataclass(frozen=True)
class Said:
    """What shipit.yml says below one key; `data` fits the section's schema, and still has keys that begin with x-."""

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
        """Report a mistake at `path` in the section: the push is refused, with all mistakes."""
        self.problems.add(self.document.at((self.key, *path)), message, hint)


class Section(Protocol):
    """`key` in shipit.yml, and the JSON Schema of what is below it."""

    @property
    def key(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, Any]: ...

    def read(self, said: Said) -> Any:
        """What the release's record keeps (JSON, an object), or None. Pure."""

    def processes(self, kept: Any) -> tuple[ProcessType, ...]:
        """The process types to run for it, beside the app's own: one process of each, or scheduled. Pure."""
