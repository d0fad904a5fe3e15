"""A followed commit waits for what others say of it: each look asks once, a failure is told once, and no wait is endless."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from receiver.caller import Caller, Role
from receiver.errors import Busy, HostFault, Rejected
from receiver.ledger.ledger import Ledger
from receiver.names import AppName, Oid
from receiver.paths import Layout
from receiver.settings import Settings
from receiver.sources.pull import remote
from receiver.sources.pull.status import Verdict
from receiver.sources.pull.wish import Follow, Place
from receiver.story import pull, verdict
from receiver.story.pull import Pull

ONE, TWO = Oid("a" * 40), Oid("b" * 40)
BLOG = AppName("blog")


class Lab:
    """An app that follows main of another repository, at `at`; `said` is what is said of a commit."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(top)
        self.ledger = Ledger(self.layout.app(BLOG))
        self.ledger.paths.releases.mkdir(parents=True)
        self.ledger.paths.repo.mkdir()
        self.ledger.create()
        self.place = Place(self.ledger.paths)
        self.place.save(Follow("https://git.test/blog", ref="main", every=300, wait_for="./may-go", wait_most=600))
        self.at, self.ref = ONE, "refs/heads/main"
        self.said: tuple[Verdict, str] | Exception = (Verdict.PENDING, "queued")
        self.brought: list[Oid] = []
        self.asked: list[Oid] = []
        self.told: list[str] = []
        patch.setattr(remote, "look", lambda place, follow: remote.Seen(self.ref, self.at))
        patch.setattr(Pull, "_bring", lambda _, follow, seen: self.bring(seen))
        patch.setattr(pull, "verdict_on", self.verdict)
        patch.setattr(verdict, "unreached", lambda ledger, reason: self.told.append(reason))

    def bring(self, seen: remote.Seen) -> int:
        self.brought.append(seen.oid)
        follow = self.follow
        self.place.save(Follow(**{**vars(follow), "name": seen.ref, "seen": str(seen.oid), "refused": ""}))
        return 0

    def verdict(self, ledger: Ledger, connect: Any, place: Place, wait_for: str, commit: Oid, ref: str) -> Any:
        self.asked.append(commit)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    @property
    def follow(self) -> Follow:
        found = self.place.read()
        assert found is not None
        return found

    def look(self, *, asked: bool = False) -> int:
        caller = Caller("git:sync", "", Role.DEPLOY, (BLOG,))
        return Pull(self.layout, self.ledger, Settings(), caller, asked=asked).look()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_it_is_taken_when_it_went_well_and_nothing_is_told_before(lab: Lab) -> None:
    for count in (1, 2, 3):
        assert lab.look() == 0 and not lab.brought and len(lab.asked) == count
    since = lab.follow.waiting
    assert since and lab.follow.waits_on == ONE and not lab.told and not lab.follow.refused
    with pytest.raises(Busy, match="queued"):
        lab.look(asked=True)
    assert lab.follow.waiting == since, "who asks does not begin the wait anew"
    lab.said = Verdict.SUCCESS, "success"
    assert lab.look() == 0 and lab.brought == [ONE] and lab.follow.waiting == 0.0
    lab.said = Verdict.FAILURE, "failed"
    assert lab.look() == 0 and lab.brought == [ONE], "what was taken is not asked about again"


def test_a_failure_is_told_once_and_the_next_commit_begins_anew(lab: Lab) -> None:
    lab.said = Verdict.FAILURE, "test: failed"
    with pytest.raises(Rejected, match="test: failed"):
        lab.look()
    for _ in range(3):
        assert lab.look() == 0
    assert len(lab.told) == len(lab.asked) == 1 and "test: failed" in lab.follow.refused and not lab.brought
    lab.said = Verdict.SUCCESS, "success"
    assert lab.look(asked=True) == 0 and lab.brought == [ONE], "who asks gets it when it has gone well after all"
    lab.at, lab.said = TWO, (Verdict.PENDING, "")
    assert lab.look() == 0 and lab.follow.waits_on == TWO and lab.follow.waiting > 0


def test_no_wait_is_endless(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab.look() == 0
    now = time.time()
    monkeypatch.setattr(pull.time, "time", lambda: now + 599)
    assert lab.look() == 0 and not lab.told
    monkeypatch.setattr(pull.time, "time", lambda: now + 700)
    with pytest.raises(Rejected, match="Nothing was said"):
        lab.look()
    assert lab.look() == 0 and len(lab.told) == 1 and not lab.brought and lab.follow.waiting == 0.0


def test_what_cannot_be_asked_is_as_what_cannot_be_reached(lab: Lab) -> None:
    lab.said = HostFault("it answers 500")
    for _ in range(3):
        with pytest.raises(HostFault):
            lab.look()
    assert len(lab.told) == 1 and lab.follow.times == 3 and not lab.follow.refused and not lab.brought
    lab.said = Verdict.SUCCESS, "success"
    assert lab.look() == 0 and lab.brought == [ONE] and lab.follow.failing == 0.0


def test_without_a_wish_nobody_is_asked_and_of_a_tag_only_when_it_is_here(lab: Lab) -> None:
    lab.place.save(Follow("https://git.test/blog", ref="main"))
    assert lab.look() == 0 and lab.brought == [ONE] and not lab.asked
    lab.place.save(Follow("https://git.test/blog", tags="v*", wait_for="./may-go"))
    lab.ref = "refs/tags/v1"
    assert lab.look() == 0 and not lab.asked, "which commit an annotated tag is, nobody knows yet: _bring asks"
