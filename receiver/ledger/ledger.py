"""The ledger of an app: its releases, its state, and the one link that says which release is live.

Owned and written by `shipit`, read by the agent. Every write goes to a new file, which is fsynced and renamed
(disk.py), so a reader sees the old content or the new one. `commit` is the commit point of the whole product.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from receiver.errors import Failure, NotFound
from receiver.ledger import pool
from receiver.model import WEB, AppState, Change, Release, Status, decode_app_state, decode_release
from receiver.names import AppName
from receiver.paths import AppPaths, Layout, ReleasePaths
from receiver.records import Corrupt, encode, taken_over
from receiver.system import disk

# Readable by the app's own group and the agent; no secret is ever in the ledger.
FILE_MODE = 0o640
DIR_MODE = 0o2751
# Every so many releases `settled` is written: that costs two fsyncs; a record that need not be read saves 30 µs.
SETTLE_EVERY = 50
# As model.encode writes it. These bytes are nowhere else in a record: a quote inside a JSON string is escaped.
FINAL = tuple(f'"status": "{status.value}"'.encode() for status in Status if status.final)
LIVE = f'"status": "{Status.LIVE.value}"'.encode()


def apps(layout: Layout) -> list[AppName]:
    """The apps of this server, by name."""
    try:
        found = sorted(entry.name for entry in os.scandir(layout.apps) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    return [AppName(name) for name in found if Ledger(layout.app(AppName(name))).exists()]


def open_app(layout: Layout, app: AppName) -> Ledger:
    """The ledger of an app that exists; raises NotFound with what to type."""
    ledger = Ledger(layout.app(app))
    if not ledger.exists():
        raise NotFound(f"There is no app {app!r}.", hint="List the apps: shipit apps")
    return ledger


class Ledger:
    """One app's ledger. Writers hold the app's lock; reading needs none."""

    def __init__(self, paths: AppPaths) -> None:
        self.paths = paths
        self.app = paths.name

    def exists(self) -> bool:
        return self.paths.state.exists() or self.paths.state_copy.exists()

    def create(self) -> AppState:
        """Write the first `app.json`; the directories exist already (agent, create_app)."""
        state = AppState(app=self.app, created=time.time())
        self.save_state(state)
        return state

    def state(self) -> AppState:
        """Raises NotFound when the app does not exist, Corrupt when the file is damaged, Newer when it is too new."""
        try:
            state = decode_app_state(self.paths.state.read_bytes())
        except FileNotFoundError:
            if self.exists():
                raise Corrupt(f"app.json of {self.app} is gone.") from None
            raise NotFound(f"There is no app {self.app!r}.", hint="List the apps: shipit apps") from None
        except Corrupt as damage:
            raise Corrupt(f"app.json of {self.app} is damaged: {damage.message}") from damage
        if state.app != self.app:
            raise Corrupt(f"app.json of {self.app} belongs to {state.app}.")
        return state

    def save_state(self, state: AppState) -> None:
        """Write the copy first, so that a full disk is met before anything is changed. For a new app `app.json` comes
        first: a copy alone would look like an app whose `app.json` was lost."""
        both = (self.paths.state_copy, self.paths.state)
        for path in both if self.paths.state.exists() else reversed(both):
            disk.write_atomically(path, encode(state), FILE_MODE)

    def change_state(self, change: Callable[[AppState], AppState]) -> AppState:
        """Read, change and write `app.json` under a lock of its own."""
        with disk.locked(self.paths.releases / "app.json.lock", wait=True):
            state = change(self.state())
            self.save_state(state)
        return state

    def numbers(self) -> list[int]:
        """The numbers of all recorded releases, oldest first."""
        return sorted(numbered(self.paths.releases))

    def built(self) -> list[int]:
        """The numbers of the releases whose slugs are on disk."""
        return numbered(self.paths.slugs)

    def release(self, number: int) -> Release:
        """Raises NotFound for a number never given out, Corrupt for a damaged record, Newer for one that is too new."""
        try:
            release = decode_release(self.paths.release(number).record.read_bytes())
        except FileNotFoundError:
            raise NotFound(
                f"{self.app} has no release v{number}.", hint=f"List them: shipit releases {self.app}"
            ) from None
        except Corrupt as damage:
            raise Corrupt(f"The record of {self.app} v{number} is damaged: {damage.message}") from damage
        if (release.app, release.number) != (self.app, number):
            raise Corrupt(f"release.json of {self.app} v{number} belongs to {release.app} {release.name}.")
        return release

    def releases(self) -> list[Release]:
        """All releases that have a record, newest first. A number whose opening was interrupted has none."""
        return list(self.newest_first())

    def newest_first(self) -> Iterator[Release]:
        """As `releases`, but each is read when it is asked for: the history only grows, and a push must not read
        all."""
        for number in reversed(self.numbers()):
            try:
                yield self.release(number)
            except NotFound:
                continue

    def unfinished(self) -> list[Release]:
        """The releases without a verdict, newest first; a record with a verdict is recognised without decoding it."""
        found = []
        settled = self._settled()
        for number in reversed(self.numbers()):
            if number <= settled:
                break
            try:
                raw = self.paths.release(number).record.read_bytes()
            except FileNotFoundError:
                continue
            if not any(word in raw for word in FINAL):
                found.append(self.release(number))
        return [release for release in found if not release.status.final]

    def settle(self, number: int) -> None:
        """Note that every release up to `number` has its verdict, which never changes: no need to look there again."""
        if number >= self._settled() + SETTLE_EVERY:
            disk.write_atomically(self.paths.settled, f"{number}\n".encode(), FILE_MODE)

    def _settled(self) -> int:
        try:
            return int(self.paths.settled.read_bytes())
        except (FileNotFoundError, ValueError):
            return 0

    def current_number(self) -> int:
        """The live release's number, 0 if there is none yet. Raises Corrupt if the link was lost or leads nowhere."""
        try:
            target = str(self.paths.current.readlink())
        except FileNotFoundError:
            if self._was_live():
                raise Corrupt(f"{self.paths.current}, which says what is live, is gone.") from None
            return 0
        except OSError as error:
            raise Corrupt(f"{self.paths.current} is no link ({error.strerror}).") from error
        number = int(target[1:]) if target[:1] == "v" and target[1:].isdecimal() else 0
        if not number or not self.paths.release(number).dir.is_dir():
            raise Corrupt(f"{self.paths.current} points at {target!r}.")
        return number

    def _was_live(self) -> bool:
        """Whether any release was ever live, by a quick look at the records."""
        records = (self.paths.release(number).record for number in reversed(self.numbers()))
        return any(LIVE in record.read_bytes() for record in records if record.exists())

    def current(self) -> Release | None:
        number = self.current_number()
        try:
            return self.release(number) if number else None
        except NotFound:
            raise Corrupt(f"The record of {self.app} v{number}, which is live, is gone.") from None

    def open_release(
        self, change: Change, by: str, base: Release | None = None, *, builds: bool = False, **values: Any
    ) -> Release:
        """Give out the next number and record the release as building, or as starting. A power cut before `keep_name`
        may remove the record, but never leaves half of it.

        `base`: the release whose carried fields it takes over. `builds`: it gets a slug of its own. `values` are
        further fields of Release. Raises OSError when the disk is full; then only a number is lost, which is never
        used.
        """
        current = self.current_number()
        number = max([0, *self.numbers()]) + 1
        while True:
            paths = self.paths.release(number)
            try:
                _make_dir(paths.dir)
                break
            except FileExistsError:
                number += 1
        paths.sockets_link.symlink_to(self.paths.release(values.get("took_over") or number).run_dir)
        for empty in (paths.log, paths.alive):
            os.close(os.open(empty, os.O_CREAT | os.O_WRONLY, FILE_MODE))
        release = Release(
            app=self.app, number=number, change=change, by=by, created=time.time(),
            status=Status.BUILDING if builds else Status.STARTING,
            previous=current,
            **{
                "config_base": current, **(taken_over(base) if base else {}), **({"slug": number} if builds else {}),
                **values,
            },
        )  # fmt: skip
        disk.write_atomically(paths.record, encode(release), FILE_MODE, lasts=disk.Lasts.CONTENT)
        return release

    def keep_name(self, release: Release) -> None:
        """Make the name of the release's directory durable. Needed before it goes live; best done while nobody
        waits."""
        disk.fsync_dir(self.paths.release(release.number).dir)
        disk.fsync_dir(self.paths.releases)

    def save(self, release: Release) -> Release:
        disk.write_atomically(self.paths.release(release.number).record, encode(release), FILE_MODE)
        return release

    def keep_copy(self, release: Release) -> None:
        """Write a second copy of a finished record, for repair: finished records are not written again."""
        disk.write_atomically(self.paths.release(release.number).record_copy, encode(release), FILE_MODE)

    def commit(self, release: Release) -> None:
        """Make `release` the live one: one rename, durable when it returns. The proxy follows the same link.

        Before it, files for nginx are written beside the record: how many web processes there are (nginx cannot look
        for sockets), and which of its pools of kept connections to use.
        """
        paths = self.paths.release(release.number)
        if release.static:
            disk.replace_symlink(paths.public, str(self.paths.release(release.slug).slug / release.static))
            disk.fsync_dir(paths.dir)
        if (web := release.count(WEB)) > 1:
            paths.web_count(web).touch(FILE_MODE)
            disk.fsync_dir(paths.dir)
        replaced = self._replaced()
        self._lay_out(release, replaced)
        pool.enter(paths, replaced, web)
        disk.replace_symlink(self.paths.current, release.name)
        if replaced not in (None, paths):
            pool.leave(replaced)

    def _lay_out(self, release: Release, replaced: ReleasePaths | None) -> None:
        """Make the links by which nginx finds the assets of the release and of the one before it (docs/proxy.md)."""
        paths = self.paths.release(release.number)
        if not (release.static or release.serving.assets):
            return
        for prefix, directory in release.serving.assets:
            link = paths.assets / prefix.lstrip("/")
            for parent in reversed(link.relative_to(paths.dir).parents[:-1]):
                with suppress(FileExistsError):
                    _make_dir(paths.dir / parent)
            disk.replace_symlink(link, self.paths.release(release.slug).slug / directory)
        if replaced not in (None, paths):
            with suppress(Failure, OSError):
                before = self.release(replaced.number)
                # A config change or a scale has the same files: keep its predecessor's link.
                target = replaced.older.readlink() if before.slug == release.slug else Path(f"../{before.name}")
                disk.replace_symlink(paths.older, target)
        disk.fsync_dir(paths.dir)

    def rest(self) -> None:
        """Some time after a commit: let nginx find the live release with the fewest checks."""
        if release := self.current():
            pool.rest(self.paths.release(release.number), release.count(WEB))

    def _replaced(self) -> ReleasePaths | None:
        """The release that is live until now; None if there is none, or it is not known."""
        with suppress(Corrupt):
            if number := self.current_number():
                return self.paths.release(number)
        return None

    def finish(self, release: Release, status: Status, reason: str = "") -> Release:
        """Record how the making of a release ended."""
        return self.save(replace(release, status=status, reason=reason, finished=time.time()))

    def previous_good(self) -> Release | None:
        """The target of a rollback without a number: what served before the current release, if that is still whole.

        After a rollback it goes on back from that rollback's target: two rollbacks go back two releases.
        """
        current = self.current()
        if current is None:
            return None
        for release in self.newest_first():
            older = release.number < (current.target or current.number)
            if older and release.status is Status.LIVE and release.slug and self.is_whole(release):
                return release
        return None

    def is_whole(self, release: Release) -> bool:
        """Whether the release was not pruned: slug, environment and config vars are on the disk.

        A pruned release's slug may stay for another release; then its sockets link tells: a prune removes that last.
        """
        if not release.slug or not self.paths.release(release.number).sockets_link.is_symlink():
            return False
        return all(self.paths.release(number).slug.is_dir() for number in release.runs_from)

    def worker_lives(self, number: int) -> bool:
        """Whether a worker still holds the release's `alive` lock."""
        try:
            # Root asks this, too, in a directory of shipit's: a link or a FIFO there must not mislead root.
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(self.paths.release(number).alive, flags)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def kept(self) -> set[int]:
        """The releases whose slugs and config must stay: current, rollback targets, pinned, and those they depend
        on."""
        state, current = self.state(), self.current_number()
        good = (r for r in self.newest_first() if r.status is Status.LIVE and r.number <= (current or r.number))
        keep = {r.number: r for r in islice(good, max(state.keep, 2))}
        for number in {*state.pinned, current} - {0, *keep}:
            with suppress(NotFound):
                release = self.release(number)
                if release.status is Status.LIVE and number <= (current or number):
                    keep[number] = release
        keep |= {r.number: r for r in self.unfinished()}
        used = {number for release in keep.values() for number in release.needs}
        return used | ({current} if current else set())


def numbered(path: Path) -> list[int]:
    """The numbers N of the names vN in a directory, unordered; none if it does not exist."""
    try:
        names = os.listdir(path)  # noqa: PTH208 - with ten thousand releases, ten times faster than Path.iterdir()
    except FileNotFoundError:
        return []
    return [int(name[1:]) for name in names if name[:1] == "v" and name[1:].isdigit()]


def _make_dir(path: Path) -> None:
    """A directory with DIR_MODE, in the group of its parent.

    By mkdir(2) alone: chmod(2) clears the set-group-id bit if the caller is not in the directory's group, and `shipit`
    is in no app's group.
    """
    before = os.umask(0o777 & ~DIR_MODE)
    try:
        path.mkdir()
    finally:
        os.umask(before)
