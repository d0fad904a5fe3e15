"""The judge of the random fault test (faults/model.py) condemns what must not be: else that test could not fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from faults.model import Broken, Content, Model, Seen, Wish

from receiver.model import Change, Origin, Release, Status
from receiver.names import AppName, TypeName

ONE, TWO = Content("one", "plain", "1" * 40), Content("two", "plain", "2" * 40)
PUSH = Wish("push", ("push",), TWO, 1)
BROKEN = Wish("push a mistake", ("push",))


def record(number: int, content: Content, status: Status = Status.LIVE, web: int = 1) -> Release:
    formation = ((TypeName("web"), web),)
    origin = Origin("git", content.commit)
    return Release(
        AppName("model"), number, Change.DEPLOY, status, "a", 1.0, slug=number, origin=origin, formation=formation
    )


@pytest.fixture
def model() -> Model:
    """v1 is live."""
    first = record(1, ONE)
    return Model(1, {1: ONE}, {1: 1}, {1: b"v1"}, {1: first}, frozenset({1}))


def good(**other: Any) -> Seen:
    """v2 went live, and nothing was lost."""
    seen = Seen(
        current=2, raw={1: b"v1", 2: b"v2"}, records={1: record(1, ONE), 2: record(2, TWO)}, whole=frozenset({1, 2}),
        scale=0, answers=["one plain", "two plain"], code=0, disturbed=False, settled=True, lost=(), cut=False,
    )  # fmt: skip
    return replace(seen, **other)


def failed(**other: Any) -> Seen:
    """v2 failed, as it had to or because somebody was killed; v1 serves."""
    records = {1: record(1, ONE), 2: record(2, TWO, Status.FAILED)}
    return good(**{"current": 1, "records": records, "code": 1, "answers": ["one plain"], **other})


def test_what_is_right_passes_and_is_true_from_then_on(model: Model) -> None:
    model.judge(BROKEN, failed())
    assert (model.current, model.next_number()) == (1, 3)
    again = {1: b"v1", 2: b"v2", 3: b"v3"}
    records = {**failed().records, 3: record(3, TWO)}
    model.judge(PUSH, good(current=3, raw=again, records=records, whole=frozenset({1, 3})))
    assert (model.content, model.previous_good(), model.can_return_to(1)) == (TWO, 1, True)
    assert not model.can_return_to(2) and not model.can_return_to(3)


def test_a_disturbed_change_may_end_either_way(model: Model) -> None:
    model.judge(PUSH, failed(disturbed=True))
    assert model.content == ONE
    assert Model(1, {1: ONE}, {1: 1}, {1: b"v1"}, {1: record(1, ONE)}).judge(PUSH, good(disturbed=True, code=1)) is None


LIES = {
    "a mistake went live": (BROKEN, good()),
    "a good push failed": (PUSH, failed()),
    "a good push is told to have failed": (PUSH, good(code=1)),
    "a failed one is told to be live": (PUSH, failed(code=0, disturbed=True)),
    "a record is gone": (PUSH, good(raw={2: b"v2"}, records={2: record(2, TWO)})),
    "history was rewritten": (PUSH, good(raw={1: b"other", 2: b"v2"})),
    "what is live is recorded as failed": (PUSH, good(records={1: record(1, ONE), 2: record(2, TWO, Status.FAILED)})),
    "a release is left half made": (
        PUSH, failed(disturbed=True, records={1: record(1, ONE), 2: record(2, TWO, Status.BUILDING)}),
    ),
    "another commit is live": (PUSH, good(records={1: record(1, ONE), 2: record(2, ONE)})),
    "somebody saw neither": (PUSH, good(answers=["one plain", "three plain"])),
    "somebody saw the new one, which never went live": (
        PUSH, failed(disturbed=True, answers=["one plain", "two plain"]),
    ),
    "a request was lost": (PUSH, good(lost=("502",), disturbed=True)),
    "the live files are gone": (PUSH, good(whole=frozenset({1}))),
    "too few processes": (PUSH, good(records={1: record(1, ONE), 2: record(2, TWO, web=2)})),
    "an old release is live": (PUSH, good(current=0, disturbed=True)),
    "the scale moved by itself": (PUSH, good(scale=3)),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_it_condemns(lie: str, model: Model) -> None:
    with pytest.raises(Broken):
        model.judge(*LIES[lie])


def test_it_condemns_a_release_where_none_was_to_be_made(model: Model) -> None:
    refused = Wish("a bad manifest", ("push",), opens=False)
    with pytest.raises(Broken):
        model.judge(refused, failed())
    with pytest.raises(Broken):
        model.judge(Wish("the same again", ("push",), ONE, 1, idle=True), good())
