"""The verbs about finished slugs: whether they are complete, and which of them may be removed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from receiver.errors import NotFound, Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Release
from receiver.names import AppName
from receiver.paths import AppPaths
from receiver.root.verbs.base import Answer, Desk
from receiver.system import disk
from receiver.wire import Request

MAX_TREE = 2_000_000  # entries of a slug, environment included


class Slugs(Desk):
    """Slugs, and the notes of which ones have run."""

    def do_check_files(self, request: Request, fds: Sequence[int]) -> Answer:
        return {"damaged": [number for number in request.releases if self._damaged(request.app, number)]}

    def do_prune(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        ledger = self._ledger(request.app)
        gone = set(request.releases)
        needed = needed_slugs(ledger, gone)
        if wanted := sorted(gone & needed):
            raise Rejected(f"v{wanted[0]} of {request.app} is still needed and was not removed.")
        for number in sorted(gone):
            self._put_aside(paths, number)
            disk.remove_tree(paths.release(number).slug)
        return {}

    def do_put_aside(self, request: Request, fds: Sequence[int]) -> Answer:
        paths = self._app(request.app)
        if request.release in needed_slugs(self._ledger(request.app), {request.release}):
            raise Rejected(f"v{request.release} of {request.app} is still needed and was not put aside.")
        self._put_aside(paths, request.release)
        return {}

    def _put_aside(self, paths: AppPaths, number: int) -> None:
        """Stop a release and remove all of it except its slug."""
        self.engines.stop(paths.name, number, wait=False)
        of = paths.release(number)
        disk.remove_tree(of.run_dir)
        disk.remove_file(self.layout.ran / paths.name / f"v{number}")
        disk.remove_file(of.config)

    def _damaged_unseen(self, release: Release) -> int:
        """The first slug that the release runs from and that lost files since it was built; 0 if there is none. A slug
        that has run since boot is not checked again: 60,000 files take half a second."""
        ledger = self._ledger(release.app)
        live = None if ledger.state().stopped else ledger.current()
        # If only the environment of another slug is used, the rest of that slug is not checked.
        slug = {release.slug} - {live.slug if live else 0}
        links = _linked(release) - (_linked(live) if live else set())
        unseen = [n for n in (slug | links) - {0} if not (self.layout.ran / release.app / f"v{n}").exists()]
        for number in sorted(unseen):
            if self._damaged(release.app, number):
                return number
        self._note_ran(release.app, {*unseen, release.slug})
        return 0

    def _note_ran(self, app: AppName, numbers: Collection[int]) -> None:
        # If /run is full, the app must start all the same: then the slug is checked once more next time.
        with suppress(OSError):
            disk.roots_dir(self.layout.ran / app, 0o700)
            for number in numbers:
                (self.layout.ran / app / f"v{number}").touch(0o600)

    def _damaged(self, app: AppName, number: int) -> bool:
        """Whether this slug lost files since it was built."""
        slug = self._app(app).release(number).slug
        try:
            expected = self._ledger(app).release(number).digest
        except NotFound:
            return False
        return not slug.is_dir() or bool(expected and disk.digest_tree(slug, MAX_TREE) != expected)


def _linked(release: Release) -> set[int]:
    """The releases whose environments it uses: its slug has a link to each that it did not make itself."""
    return {release.environment, *release.shares}


def needed_slugs(ledger: Ledger, gone: set[int]) -> set[int]:
    """The releases whose slugs must stay when `gone` are removed: the live one, and those that a kept one runs from."""
    kept = ledger.kept() - gone
    current = ledger.current_number()
    used: set[int] = set()
    for number in (kept | {current}) - {0}:
        with suppress(NotFound):
            release = ledger.release(number)
            used |= release.needs
    return used | ({current} if current else set())
