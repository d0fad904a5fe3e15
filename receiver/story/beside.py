"""What shipit gives to a release that does not start, so that it can be started again.

A place in the app's data: for an app that writes beside its code, where a release is read-only. shipit mounts a
directory of the data there, but only where the release has no file, or nothing but databases and logs
(inside/storage.py). Anywhere else the data would hide the release's files from then on, and no push would change what
the app sees there.

A secret: for an app that wants one from its environment (to sign cookies, say). shipit makes it, and keeps it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from receiver import names
from receiver.errors import BuildFailed, Failure, Unhealthy
from receiver.inside.storage import DATABASES
from receiver.manifest import Tree
from receiver.model import Change, Release
from receiver.names import ConfigKey
from receiver.ops import quota
from receiver.story import storage
from receiver.story.context import AppContext
from receiver.system import disk

PLACES = 5  # the most that one release is given
MOST = 20  # the most that an app has in all from here
MAX_SOURCES = 300
_DATABASE = re.compile(
    rb"(?:sqlite:/{3}|dirname|basedir|BASE_DIR|connect\(|filename|storage|database|_(?:FILE|DB|PATH)\s*=)[^\n]{0,100}?"
    rb"[\"'/]((?:[\w.-]+/)?[\w-]+\.(?:db|sqlite3?))[\"']",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"(?:^|/)(?:tests?|docs?|examples?|migrations|node_modules)/|(?:^|/)(?:test_|conftest)")


class Beside:
    """What one release is given. `start` tries; call `keep` when the release is live."""

    def __init__(self, context: AppContext, release: Release) -> None:
        self.context, self.release = context, release
        self.given: list[tuple[str, str]] = []
        self.made: list[ConfigKey] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raises Again in place of a failure that another start of the release may mend."""
        try:
            yield
        except (Unhealthy, BuildFailed) as failure:
            if not self._give(failure):
                raise
            raise Again from failure

    def keep(self) -> None:
        """Record the places as the app's, for its later releases."""
        if self.given:
            mounted = {place: data for data, place in self.context.ledger.state().storage}
            mounted |= {place: data for data, place in self.given}
            storage = tuple(sorted((data, place) for place, data in mounted.items()))
            self.context.ledger.change_state(lambda state: replace(state, storage=storage))

    def _give(self, failure: Failure) -> bool:
        # Importing all sources and runtimes is slow, and only a failure needs them.
        from receiver.sources.all import origin_of, source_of
        from receiver.story.advice import beside, file_beside, secret

        context, release = self.context, self.context.ledger.release(self.release.number)
        # A place that a user took away with a command is not given again.
        pushed = release.builds and release.change is Change.DEPLOY
        if not pushed or release.image or not release.digest or len(self.given) >= PLACES:
            return False
        seen = failure.seen if isinstance(failure, Unhealthy) else ()
        lines = self._since([*(seen or failure.details or context.say.last)])
        if (name := secret(lines)) and self._make(release, ConfigKey(name)):
            return True
        databases = [""]
        if any("database" in line for line in lines):
            with suppress(Failure):
                databases = _databases(source_of(context.paths, origin_of(release)).tree(origin_of(release))) or [""]
        places = [
            place
            for database in databases
            for place in _places(beside(lines, database), file_beside(lines))
            if _is_free(release, place)
        ]
        if not places:
            return False
        if full := self._full(release):
            context.say.warn(
                f"{release.app} writes to {places[0]} beside its code, and is not given that place: {full}"
            )
            return False
        context.agent.stop(release.app, release.number, wait=True)
        given, place = next(
            ((given, place) for place in places if (given := self._mounted(release, place))), (None, "")
        )
        if not given:
            return False
        self.given.append((place, place))
        context.ledger.save(given)
        context.say.step(
            f"{release.app} writes to {place} beside its code: that is of its data from now on ($DATA_DIR/{place})"
        )
        context.say.line(
            f"The same in shipit.yml, for another server:  storage: [{', '.join(at for _, at in given.storage)}]"
        )
        return True

    def _since(self, lines: list[str]) -> list[str]:
        """The lines that came after the release was last given something; the earlier ones were dealt with then."""
        from receiver.story.advice import beside, file_beside, secret

        given = {place for _, place in self.given}
        for at in range(len(lines) - 1, -1, -1):
            line = lines[at : at + 1]
            if secret(line) in self.made or given & {*_places(beside(line), file_beside(line))}:
                return lines[at + 1 :]
        return lines

    def _full(self, release: Release) -> str:
        """Why the app is given no further place; "" while it may have one. What it writes there counts as its data."""
        context = self.context
        if len(release.storage) >= MOST:
            return f"it has {len(release.storage)} such places already. In shipit.yml:  storage: [...]"
        most = quota.of(context.ledger.state(), context.settings)
        if not most:
            return ""
        try:
            used = storage.measure(context.ledger, context.agent, most).used
        except Failure as failure:
            return failure.message
        return quota.sentence(release.app, used, most) if quota.level(used, most) is quota.Level.OVER else ""

    def _make(self, release: Release, key: ConfigKey) -> bool:
        """Give the release a secret; False if it has one of that name already, so that another would not help."""
        context = self.context
        if key in {**dict(release.env), **context.agent.read_config(release.app, release.number)}:
            return False
        self.made.append(key)
        made = secrets.token_urlsafe(48)
        context.say.hide([made])
        context.agent.stop(release.app, release.number, wait=True)
        context.agent.snapshot_config(release.app, release.number, release.number, {key: made}, [])
        context.ledger.save(replace(release, config_base=release.number))
        context.say.step(
            f"{release.app} wants a {key} of its own: made a secret, which stays ($ shipit config {release.app})"
        )
        return True

    def _mounted(self, release: Release, place: str) -> Release | None:
        """The release with one more place in its slug; None if the commit has a file there."""
        context = self.context
        storage = tuple(sorted((*release.storage, (place, place)), key=lambda pair: pair[1]))
        path = context.paths.release(release.number).build_plan
        plan = json.loads(path.read_bytes())
        plan["storage"] = [[str(context.paths.data / data), at] for data, at in storage]
        # What was built without it is built without it again (story/reuse.py).
        plan["absent"] = sorted({*plan.get("absent", []), place})
        disk.write_atomically(path, json.dumps(plan, indent=1).encode() + b"\n", 0o640, lasts=disk.Lasts.LATER)
        with suppress(Failure), context.say.output() as output:
            result = context.agent.mount(release.app, release.number, output)
            if not result.code:
                return replace(release, storage=storage, digest=result.digest)
        return None


class Again(Exception):
    """The release can be started once more."""


def _places(found: str, file: str) -> list[str]:
    """Where the app may find its data, the likeliest place first. For a database that is the directory around it: some
    programs create the file only where nothing exists, and a link does exist."""
    around = found.rpartition("/")[0] if found.endswith(DATABASES) else ""
    return [place for place in dict.fromkeys((around, found, file)) if place]


def _is_free(release: Release, place: str) -> bool:
    from receiver.runtimes.all import RUNTIMES

    try:
        names.slug_path(place)
    except Failure:
        return False
    taken = [*(at for _, at in release.storage), *(made for runtime in RUNTIMES for made in runtime.makes)]
    return not any(f"{place}/".startswith(f"{other}/") or other.startswith(f"{place}/") for other in taken)


def _databases(tree: Tree) -> list[str]:
    """Where the sources say that their SQLite databases are, the likeliest first. Each try gives one of them to the
    release; a wrong guess leaves a link that leads to nothing."""
    paths = [
        p
        for p in tree.files()
        if p.endswith((".py", ".js", ".ts", ".cjs", ".mjs", ".rb", ".go")) and not _ASIDE.search(p)
    ]
    found = {}
    for path in sorted(paths, key=len)[:MAX_SOURCES]:
        for match in _DATABASE.finditer(tree.read(path) or b""):
            # In the directory of the source file that names it, or in one above.
            ups = match[0].lower().count(b"dirname") or match[0].lower().count(b"basedir")
            where = "/".join(path.split("/")[:-ups]) if ups else ""
            found[f"{where}/{match[1].decode()}".lstrip("/")] = path
    return sorted(found, key=lambda name: (len(name), name))[:PLACES]
