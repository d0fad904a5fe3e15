"""Which directories of earlier builds a build uses again: by link, from a copy, or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from receiver.ledger.ledger import Ledger
from receiver.manifest import Manifest
from receiver.model import Change, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.runtimes.base import BuildPlan, Made, Step
from receiver.settings import Settings
from receiver.story import reuse

STEP = Step("fill", ("true",))


def made(name: str, key: str, seed: str = "s", requires: Sequence[str] = ()) -> Made:
    adds = Step("add", ("add",))
    return Made(name, key, (STEP,), seed_key=seed, seeded=(STEP,), copier="x", requires=tuple(requires), adds=adds)


class App:
    """A ledger in a directory; `build` makes the next release by a plan, as story/build.py does."""

    def __init__(self, root: Path) -> None:
        self.ledger = Ledger(Layout(root).app(AppName("blog")))
        self.ledger.paths.releases.mkdir(parents=True)
        self.ledger.create()
        self.context: Any = SimpleNamespace(ledger=self.ledger, paths=self.ledger.paths, settings=Settings())

    def build(self, *directories: Made, steps: tuple[Step, ...] = (), fresh: bool = False) -> list[reuse.Reused]:
        plan = BuildPlan("x", made=directories, steps=steps)
        release = self.ledger.open_release(Change.DEPLOY, "ann", builds=True, fresh=fresh)
        found = reuse.find(self.context, release, plan)
        paths = self.ledger.paths.release(release.number)
        paths.build_plan.write_bytes(reuse.encoded(self.context, release, plan, found, Manifest((), ())))
        paths.slug.mkdir(parents=True)
        live = replace(release, digest="d", status=Status.LIVE, shares=reuse.shares(found))
        self.ledger.commit(self.ledger.save(live))
        return found


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


def test_each_directory_is_taken_from_the_release_that_has_it(app: App) -> None:
    app.build(made("a", "1"), made("b", "1"))
    app.build(made("a", "2"), made("b", "1"))
    found = app.build(made("a", "2"), made("b", "1"))
    assert [reused.link for reused in found] == [2, 1]
    assert reuse.shares(found) == (1, 2)


def test_a_link_leads_to_the_release_that_made_it_and_not_to_one_that_links_to_it(app: App) -> None:
    for _ in range(3):
        found = app.build(made("a", "1"))
    assert found[0].link == 1


def test_another_key_starts_from_the_newest_copy_that_is_of_the_same_kind(app: App) -> None:
    app.build(made("a", "1", requires=["x"]))
    app.build(made("a", "2", requires=["x", "y"]))
    app.build(made("a", "2", requires=["x", "y"]))
    (reused,) = app.build(made("a", "3", requires=["x", "y", "z"]))
    assert (reused.link, reused.seed, reused.requires) == (0, 2, ("x", "y"))
    assert app.build(made("a", "4", seed="other"))[0].seed == 0


def test_what_a_build_command_may_have_changed_is_completed_by_all_that_is_required(app: App) -> None:
    app.build(made("a", "1", requires=["x"]), steps=(STEP,))
    assert app.build(made("a", "2", requires=["x", "y"]))[0].requires == ()


@pytest.mark.parametrize("lost", ["the slug", "the plan", "an older version's plan", "nothing, but anew was asked for"])
def test_what_is_not_there_or_not_wanted_is_made_anew(app: App, lost: str) -> None:
    app.build(made("a", "1"))
    paths = app.ledger.paths.release(1)
    if lost == "the slug":
        paths.slug.rmdir()
    elif lost == "the plan":
        paths.build_plan.write_text("{")
    elif lost == "an older version's plan":
        paths.build_plan.write_text('{"seed_key": "s", "following": []}')
    (reused,) = app.build(made("a", "1"), fresh=lost.startswith("nothing"))
    assert (reused.link, reused.seed) == (0, 0)


def test_a_directory_without_a_key_is_each_releases_own(app: App) -> None:
    app.build(made("a", "", seed=""))
    assert app.build(made("a", "", seed=""))[0] == reuse.Reused(made("a", "", seed=""))


def test_a_place_that_the_app_was_given_is_absent_to_later_builds_unless_the_commit_names_it(app: App) -> None:
    app.build()
    plan = app.ledger.paths.release(1).build_plan
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "absent": ["logs"]}))
    release = app.ledger.open_release(Change.DEPLOY, "ann", builds=True)
    release = replace(release, storage=(("logs", "logs"), ("media", "media")))
    assert reuse.absent(app.context, release, Manifest((), ())) == ["logs"]
    assert reuse.absent(app.context, release, Manifest((), (), storage=(("logs", "logs"),))) == []
