"""A source in one file: a list of files as JSON. Its only other place is its row in sources/all.py."""

from __future__ import annotations

import json
import os
import time
from typing import IO

from receiver.errors import Rejected
from receiver.model import Origin
from receiver.names import Oid
from receiver.sources.base import Stored
from receiver.sources.git.receive import REF, Check, received
from receiver.sources.git.repository import Git
from receiver.sources.limits import Limits


class ListSource(Stored):
    """`{"name": "content"}`, ended by a line break."""

    kind = "list"

    def takes(self, file: IO[bytes]) -> bool:
        return os.pread(file.fileno(), 2, 0) == b'{"'

    def receive(
        self, file: IO[bytes], limits: Limits, *, by: str, parent: Oid | None, said: str, check: Check
    ) -> tuple[Origin, list[str]]:
        try:
            files = json.loads(file.read(limits.packed))
        except ValueError as error:
            raise Rejected("The list is damaged or cut off.", holds="Nothing was received.") from error
        commit = [f"commit {REF}", f"committer shipit <shipit@localhost> {int(time.time())} +0000", "data 4", "list"]
        lines = [*commit, *([f"from {parent}"] if parent else []), "deleteall"]
        for name, content in files.items():
            lines += [f"M 100644 inline {name}", f"data {len(content.encode())}", content]

        def fill(git: Git) -> None:
            git.run("fast-import", "--quiet", input="\n".join([*lines, ""]).encode())

        return Origin(self.kind, received(self.paths.repo, fill, check), title="a list", author=by), ["a list"]
