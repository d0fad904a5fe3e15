"""What must hold of one app, whatever is asked of it and whatever is killed meanwhile. Knows no machine.

A `Wish` is one change that somebody asks for, with what would be live if it came true. After it, the test hands over
what it `Seen`; `Model.judge` names the first promise that was broken and takes over what is true from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from receiver.model import Change, Release, Status


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True)
class Content:
    """What a release is made of, as far as a visitor and the ledger tell."""

    mark: str
    colour: str
    commit: str

    @property
    def body(self) -> str:
        """What the app answers."""
        return f"{self.mark} {self.colour}"


@dataclass(frozen=True)
class Wish:
    """One change: `content` and `web` would be live; neither, if it must be refused or fail.

    `opens`: it makes a release even if that fails. `change` is what the release then says it came by.
    """

    what: str
    words: tuple[str, ...]
    content: Content | None = None
    web: int = 0
    opens: bool = True
    change: Change = Change.DEPLOY
    # It asks for what is so already: nothing is made, and that is no failure.
    idle: bool = False


@dataclass(frozen=True)
class Seen:
    """The world after a change: the ledger, the visitors' answers, the verdict."""

    current: int
    raw: Mapping[int, bytes]
    records: Mapping[int, Release]
    whole: frozenset[int]
    scale: int
    answers: Iterable[str]
    # The exit code that the asker got.
    code: int
    # Whether something was killed meanwhile: then the change may have come true or not.
    disturbed: bool
    # Whether what was killed has been put right by `doctor --fix`, the boot or the next push.
    settled: bool
    # The requests that got no good answer, and whether that may be: what carries them was killed.
    lost: Sequence[str]
    cut: bool


@dataclass
class Model:
    """What is true of the app, as of the last change."""

    current: int = 0
    contents: dict[int, Content] = field(default_factory=dict)
    webs: dict[int, int] = field(default_factory=dict)
    final: dict[int, bytes] = field(default_factory=dict)
    records: dict[int, Release] = field(default_factory=dict)
    whole: frozenset[int] = frozenset()
    # How many web processes the next push gets; 0: as its manifest says.
    scale: int = 0

    @property
    def content(self) -> Content:
        return self.contents[self.current]

    def next_number(self) -> int:
        return max(self.records) + 1

    def can_return_to(self, number: int) -> bool:
        """Whether a rollback to this release must work: it was live, its files are there, and it is not live now."""
        record = self.records.get(number)
        return number != self.current and record is not None and record.status is Status.LIVE and number in self.whole

    def previous_good(self) -> int:
        """What a rollback without a number returns to, 0 for nothing."""
        at = self.records[self.current]
        older = [n for n in self.records if n < (at.target or at.number) and self.can_return_to(n)]
        return max(older, default=0)

    def judge(self, wish: Wish, seen: Seen) -> None:
        """Raise Broken, or take over what was seen."""
        before = self.current
        new = sorted(set(seen.records) - set(self.records))
        self._history_only_grows(seen, new, wish)
        went_live = seen.current != before
        if went_live:
            self._must(seen.current in new, f"v{seen.current} is live, which this change did not make")
            self._must(wish.content is not None and not wish.idle, f"{wish.what} went live as v{seen.current}")
            record = seen.records[seen.current]
            settled = record.status is Status.LIVE or not seen.settled
            self._must(settled, f"v{seen.current} is live and recorded as {record.status.value}")
            self._must(record.change is wish.change, f"v{seen.current} came by {record.change.value}")
            if wish.content:
                self._must(record.commit == wish.content.commit, f"v{seen.current} has the commit {record.commit}")
        for number in new:
            record = seen.records[number]
            self._must(number == seen.current or record.status is not Status.LIVE, f"v{number} is recorded as live")
        left = [n for n, record in seen.records.items() if not record.status.final and (seen.settled or n not in new)]
        self._must(not left, f"v{left} was left without an end")
        self._verdict(wish, seen, went_live)
        allowed = {self.content.body} if before else set()
        if wish.content is not None and (went_live or not seen.disturbed):
            allowed.add(wish.content.body)
        odd = sorted(set(seen.answers) - allowed)
        self._must(not odd, f"visitors saw {odd}, not one of {sorted(allowed)}")
        self._must(
            seen.cut or not seen.lost, f"requests were lost, and nothing that carries them was killed: {seen.lost}"
        )
        self._take_over(wish, seen, new)

    def _history_only_grows(self, seen: Seen, new: list[int], wish: Wish) -> None:
        self._must(set(self.records) <= set(seen.records), f"records are gone: {set(self.records) - set(seen.records)}")
        for number, raw in self.final.items():
            self._must(seen.raw[number] == raw, f"the record of v{number} was changed after its end")
        self._must(all(number > max(self.records, default=0) for number in new), f"a number was given out again: {new}")
        limit = 1 if wish.opens and not wish.idle else 0
        self._must(len(new) <= limit, f"{wish.what} made {len(new)} releases")

    def _verdict(self, wish: Wish, seen: Seen, went_live: bool) -> None:
        good = wish.content is not None
        if seen.code == 0:
            self._must(good and (went_live or wish.idle), f"{wish.what}: exit code 0, and it is not live")
        if seen.disturbed:
            return
        self._must((seen.code == 0) is good, f"{wish.what}: exit code {seen.code}")
        self._must(went_live is (good and not wish.idle), f"{wish.what}: live is v{seen.current}")

    def _take_over(self, wish: Wish, seen: Seen, new: list[int]) -> None:
        for number in new:
            if wish.content is not None:
                self.contents[number], self.webs[number] = wish.content, wish.web
        live = seen.records[seen.current] if seen.current else None
        if live is not None:
            count = sum(count for kind, count in live.formation if kind == "web")
            self._must(count == self.webs[seen.current], f"v{seen.current} has {count} web processes")
        scales = {self.scale}
        if wish.change is Change.SCALE and not wish.idle:
            scales = {self.scale, wish.web} if seen.disturbed else {wish.web}
        self._must(seen.scale in scales, f"the app is scaled to {seen.scale}, not to one of {scales}")
        self.current, self.records, self.whole, self.scale = seen.current, dict(seen.records), seen.whole, seen.scale
        self.final = {n: seen.raw[n] for n, record in seen.records.items() if record.status.final}
        if self.current:
            self._must(self.current in self.whole, f"the files of v{self.current} are gone, and it is live")

    @staticmethod
    def _must(holds: bool, otherwise: str) -> None:
        if not holds:
            raise Broken(otherwise)
