"""What an app follows (`git:sync`), and how the last look at it went. Kept in repo.git, where only `shipit` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from receiver.paths import AppPaths
from receiver.records import FORMAT, Format, Record, decode, encode, flag, format_number, own, real, text, whole
from receiver.system import disk

# The least and the most seconds between two looks.
OFTEN, SELDOM = 60, 7 * 86400
WAIT = 3600  # seconds to wait for a commit's checks, by default


@dataclass(frozen=True)
class Follow(Record):
    """What is followed. `ref` is a branch, a tag or a full ref ("": the HEAD of the other repository); `tags` a pattern
    of which the newest version is taken instead. `every`: seconds (0: only when asked). `signed`: only what an allowed
    signer has signed.

    `seen` is the object of the ref `name` that was tried last, `refused` why it did not go live ("": it did), `commit`
    the last commit that was taken. `looked` is the time of the last look; `failing` since when the other side cannot be
    reached (0.0: it can), `reason` why, `times` how often.

    `wait_for` is the URL or the command that must approve a commit before it is taken ("": none), `wait_most` for how
    long (s) it may have no answer; `waiting` since when it has none for the object `waits_on` (0.0: nothing waits)."""

    url: str = field(metadata=own(text))
    format: Format = field(default=FORMAT, metadata=own(format_number))
    ref: str = field(default="", metadata=own(text))
    tags: str = field(default="", metadata=own(text))
    every: int = field(default=0, metadata=own(whole(SELDOM)))
    signed: bool = field(default=False, metadata=own(flag))
    name: str = field(default="", metadata=own(text))
    seen: str = field(default="", metadata=own(text))
    refused: str = field(default="", metadata=own(text))
    commit: str = field(default="", metadata=own(text))
    looked: float = field(default=0.0, metadata=own(real))
    failing: float = field(default=0.0, metadata=own(real))
    reason: str = field(default="", metadata=own(text))
    times: int = field(default=0, metadata=own(whole()))
    wait_for: str = field(default="", metadata=own(text, since=Format(1, 4)))
    wait_most: int = field(default=WAIT, metadata=own(whole(SELDOM, low=OFTEN), since=Format(1, 4)))
    waiting: float = field(default=0.0, metadata=own(real, since=Format(1, 4)))
    waits_on: str = field(default="", metadata=own(text, since=Format(1, 4)))

    @property
    def what(self) -> str:
        """What is followed, as the user typed it."""
        return f"tags {self.tags}" if self.tags else self.ref or "HEAD"


class Place:
    """The files of one app's pull, in a directory of repo.git that git does not use."""

    def __init__(self, paths: AppPaths) -> None:
        self.repo = paths.repo
        self.dir = paths.repo / "pull"

    @property
    def key(self) -> Path:
        return self.dir / "key"

    @property
    def public_key(self) -> Path:
        return self.dir / "key.pub"

    @property
    def known_hosts(self) -> Path:
        return self.dir / "known_hosts"

    @property
    def credentials(self) -> Path:
        """In the format of git-credential-store(1)."""
        return self.dir / "credentials"

    @property
    def signers(self) -> Path:
        """In ssh-keygen(1)'s format ALLOWED SIGNERS."""
        return self.dir / "signers"

    @property
    def lock(self) -> Path:
        """Held by the process that looks at the other side."""
        return self.dir / "lock"

    @property
    def shared(self) -> Path:
        """The socket of the ssh connection that one look shares."""
        return self.dir / "shared"

    @property
    def waiting(self) -> Path:
        """Held by the process that will look next, after the current one."""
        return self.dir / "waiting"

    @property
    def hook(self) -> Path:
        """The secrets of the webhook (hook.py); may be missing."""
        return self.dir / "hook"

    @property
    def _record(self) -> Path:
        return self.dir / "follow.json"

    def make(self) -> None:
        self.dir.mkdir(mode=0o700, exist_ok=True)

    def read(self) -> Follow | None:
        """What the app follows; None if nothing. Raises Corrupt."""
        try:
            return decode(Follow, self._record.read_bytes(), "follow.json")
        except FileNotFoundError:
            return None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A lock on these files for the block: for reading one and writing it again."""
        self.make()
        with disk.locked(self.dir / "changing", wait=True):
            yield

    def save(self, follow: Follow) -> None:
        """Write the record; inside `changing`, if it was read before."""
        self.make()
        disk.write_atomically(self._record, encode(follow), 0o600)

    def change(self, change: Callable[[Follow], Follow]) -> None:
        """Change the record as it is now; does nothing if the app follows nothing."""
        with self.changing():
            if (now := self.read()) is not None:
                self.save(change(now))

    def drop(self) -> bool:
        """Stop following; keys and passwords stay."""
        with self.changing():
            return disk.remove_file(self._record)

    def write(self, path: Path, text: str) -> None:
        self.make()
        disk.write_atomically(path, text.encode(), 0o600)

    def lines(self, path: Path) -> list[str]:
        try:
            return path.read_text().splitlines()
        except FileNotFoundError:
            return []
