"""Following another repository: see whether the ref has moved, fetch it, and make a release of it as of a push.

A commit is tried once, whether it went live or not: again only when the ref moves, or when a user asks. A repository
that cannot be reached is asked each time; people are told of that once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace

from receiver.caller import Caller
from receiver.errors import Busy, Cancelled, Failure, Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Change
from receiver.names import Oid
from receiver.paths import Layout
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.sources.pull import remote
from receiver.sources.pull.source import PullSource
from receiver.sources.pull.status import Verdict, told
from receiver.sources.pull.wish import Follow, Place
from receiver.story import verdict
from receiver.story.admit import Admission, approve_for
from receiver.story.submit import Submission, tell
from receiver.story.waits import verdict_on
from receiver.system import disk

REASON_MAX = 500


class Pull:
    """Looks at the repository that an app follows. `asked`: a user waits for it, so a commit is tried again.

    `told`: the last look failed for a reason that people were told of already.
    """

    def __init__(self, layout: Layout, ledger: Ledger, settings: Settings, caller: Caller, *, asked: bool) -> None:
        self.layout, self.ledger, self.settings, self.caller, self.asked = layout, ledger, settings, caller, asked
        self.told = False
        self._place = Place(ledger.paths)

    def look(self, *, waits: bool = False) -> int:
        """Make a release if there is a new commit; returns the exit code of its verdict, 0 if there is nothing new.

        `waits`: if another process is looking, look again when it is done, for what has come since; one process waits
        for all. Raises Unreached, Rejected if the commit is refused (the ledger is as it was), and Busy.
        """
        if self._place.read() is None:
            app = self.ledger.app
            raise Rejected(f"{app} follows no repository.", hint=f"Follow one: shipit git:sync {app} URL [REF]")
        with ExitStack() as stack:
            try:
                with disk.locked(self._place.waiting, wait=False) if waits else nullcontext():
                    stack.enter_context(disk.locked(self._place.lock, wait=waits))
            except BlockingIOError:
                if waits:
                    return 0
                raise Busy(f"{self.ledger.app} is being fetched already.") from None
            stack.enter_context(remote.one_connection(self._place))
            follow = self._place.read()
            return self._look(follow) if follow else 0

    def _look(self, follow: Follow) -> int:
        try:
            seen = remote.look(self._place, follow)
        except Failure as failure:
            self._missed(follow, failure)
            raise
        self._save(lambda now: replace(now, looked=time.time(), failing=0.0, reason="", times=0))
        if not self.asked and (seen.ref, str(seen.oid)) == (follow.name, follow.seen):
            return 0
        if self._serves(follow, seen):
            tell(f"{seen.ref} of {follow.url} is at {seen.oid[:8]}, which is live.")
            return 0
        try:
            # Which commit a tag points to is known only after it is fetched.
            if not seen.ref.startswith("refs/tags/") and not self._may(follow, seen, seen.oid):
                return 0
            return self._bring(follow, seen)
        except (Busy, Cancelled):
            raise
        except Rejected as refusal:
            self._refused(seen, refusal.message)
            raise
        except Failure as failure:
            self._missed(follow, failure)
            raise

    def _bring(self, follow: Follow, seen: remote.Seen) -> int:
        tell(f"Fetching {seen.ref} of {follow.url}")
        app, source = self.ledger.app, PullSource(self.ledger.paths)
        # Fetch before taking the app's turn: a slow server must not keep other changes waiting.
        with remote.fetched(self._place, follow, seen, self.settings.max_push * 2**20) as (git, oid):
            if follow.signed:
                tell(f"{oid[:8]} is signed by {remote.check_signature(self._place, git, seen, oid)}")
            if seen.ref.startswith("refs/tags/") and not self._may(follow, seen, oid):
                return 0
            last = Oid(follow.commit)
            if last and last != oid and not self.ledger.state().allow_force_push:
                # Even if the last commit is not kept here any more, the fetched history has it if it goes on from it.
                goes_on = git.commit_of(last) is not None and git.is_ancestor(last, oid)
                self._refuse_rewritten(follow, seen, last, oid, goes_on=goes_on)
            how = f"If this is intended, once before it: shipit ps:scale {app} web=0 --force"
            admission = Admission(self.layout, self.ledger, self.settings, self.caller, how)
            with Submission(self.layout, self.ledger, self.caller) as submission:
                origin = source.take(git, oid, seen.ref, admission)
                self._save(lambda now: replace(now, name=seen.ref, seen=str(seen.oid), commit=str(oid), refused=""))
                approve_for(self.caller, self.ledger, admission.names)
                code = submission.submit(Change.DEPLOY, builds=True, origin=origin)
                release = self.ledger.release(self.ledger.numbers()[-1])
        if code:
            self._save(lambda now: replace(now, refused=f"{release.name}: {release.reason}"[:REASON_MAX]))
        return code

    def _may(self, follow: Follow, seen: remote.Seen, commit: Oid) -> bool:
        """Whether the check of --wait-for has passed; False while it has no answer and no user asked.

        Raises Rejected if the check failed or has had no answer for too long; Busy if a user asked and there is no
        answer yet.
        """
        if not follow.wait_for:
            return True
        found, why = verdict_on(
            self.ledger, lambda: Agent.connect(self.layout.agent_socket), self._place, follow.wait_for, commit, seen.ref
        )
        now = time.time()
        since = follow.waiting if follow.waits_on == seen.oid and follow.waiting else now
        pending = found is Verdict.PENDING
        self._save(lambda f: replace(f, waiting=since if pending else 0.0, waits_on=seen.oid if pending else ""))
        if found is Verdict.SUCCESS:
            tell(f"{commit[:8]} went well: {told(follow.wait_for)}")
            return True
        if found is Verdict.FAILURE:
            raise Rejected(
                f"{commit[:8]} of {seen.ref} did not go well: {why} ({told(follow.wait_for)}).",
                hint=f"When it has, by itself or after all: shipit git:sync {self.ledger.app}",
            )
        if now - since > follow.wait_most:
            self._save(lambda f: replace(f, waiting=0.0, waits_on=""))
            raise Rejected(
                f"Nothing was said of {commit[:8]} of {seen.ref} for {(now - since) / 60:.0f} minutes: {why}.",
                hint=f"When it has gone well: shipit git:sync {self.ledger.app}",
            )
        if not self.asked:
            return False
        then = "The timer asks again." if follow.every else f"Ask again: shipit git:sync {self.ledger.app}"
        raise Busy(f"Nobody has said yet whether {commit[:8]} of {seen.ref} goes well: {why}.", hint=then)

    def _serves(self, follow: Follow, seen: remote.Seen) -> bool:
        """Whether exactly this was taken before, and is live."""
        current = self.ledger.current()
        origin = current.origin if current else None
        mine = origin is not None and origin.kind == PullSource.kind and origin.id == follow.commit
        return mine and not follow.refused and (seen.ref, str(seen.oid)) == (follow.name, follow.seen)

    def _refuse_rewritten(self, follow: Follow, seen: remote.Seen, last: Oid, new: Oid, *, goes_on: bool) -> None:
        """Refuse a branch that does not go on from its last commit, or a moved tag; a newer tag may be anywhere."""
        hint = f"Allow it: shipit git:set {self.ledger.app} force-push on    Then: shipit git:sync {self.ledger.app}"
        if seen.ref.startswith("refs/tags/") and seen.ref == follow.name:
            raise Rejected(f"{seen.ref} of {follow.url} was moved from {last[:8]} to {new[:8]}.", hint=hint)
        if not goes_on and not follow.tags:
            raise Rejected(
                f"{seen.ref} of {follow.url} is at {new[:8]}, which does not go on from {last[:8]}: its history was "
                "rewritten, or it is another repository.",
                hint=hint,
            )

    def _refused(self, seen: remote.Seen, reason: str) -> None:
        """What was seen is refused, and is not tried again before it changes."""
        self._save(lambda now: replace(now, name=seen.ref, seen=str(seen.oid), refused=reason[:REASON_MAX]))
        verdict.unreached(self.ledger, reason)

    def _missed(self, follow: Follow, failure: Failure) -> None:
        self.told = follow.failing > 0
        reason = " ".join([failure.message, *failure.details[:1]])[:REASON_MAX]
        since = follow.failing or time.time()
        self._save(lambda now: replace(now, looked=time.time(), failing=since, reason=reason, times=follow.times + 1))
        if not self.told:
            verdict.unreached(self.ledger, reason)

    def _save(self, change: Callable[[Follow], Follow]) -> None:
        """Change what is kept by now: a user may meanwhile have changed what is followed, or ended it."""
        self._place.change(change)
