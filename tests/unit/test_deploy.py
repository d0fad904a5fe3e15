"""What a deploy does, step by step: the real story over a real ledger, its effects replaced by one recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import BuildFailed, Cancelled, Failure, HostFault, Unhealthy
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Check, CheckKind, Listen, Origin, ProcessType, Release, Status
from receiver.names import TypeName
from receiver.root.client import Agent, BuildResult
from receiver.settings import Settings
from receiver.sources.git.repository import Git
from receiver.story import build as building
from receiver.story import deploy as story
from receiver.story.context import AppContext
from receiver.system import disk

WEB = ProcessType(TypeName("web"), "run", Listen.SOCKET, Check(CheckKind.UPTIME, settle=0))
LIVE = ["adopt", "read_config", "proxy", "build", "snapshot_config", "release_command", "start", "check", "commit"]


class Recorder:
    """Writes down every effect; `fails` maps one to what it raises."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.said: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.seconds: list[tuple[str, float]] = []
        self.last: list[str] = []

    def do(self, what: str) -> None:
        self.done.append(what)
        if what in self.fails:
            raise self.fails[what]

    # As the agent.
    def __getattr__(self, verb: str) -> Callable[..., Any]:
        answers: dict[str, Any] = {"read_config": {}, "release_command": 0, "processes": [], "in_use": set()}

        def call(*given: object, **more: object) -> Any:
            self.do(verb)
            return answers.get(verb)

        return call

    def anew(self) -> Any:
        return nullcontext(self)

    # As what is said.
    def step(self, line: str) -> None:
        self.said.append(line)

    line = warn = step

    def hide(self, values: object) -> None: ...

    def timed(self, name: str) -> Any:
        self.seconds.append((name, 0.0))
        return nullcontext()

    def output(self) -> Any:
        return nullcontext(1)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()

    def build(context: AppContext, release: Release, *rest: Any) -> Release:
        made.do("build")
        release = replace(release, processes=(WEB,), formation=((WEB.type, 1),), release_command="migrate")
        return context.ledger.save(replace(release, environment=release.number, digest="d"))

    @contextmanager
    def synced(path: Path) -> Iterator[None]:
        yield

    commit = Ledger.commit

    def committed(ledger: Ledger, release: Release) -> None:
        made.do("commit")
        commit(ledger, release)

    monkeypatch.setattr(building, "build", build)
    monkeypatch.setattr(disk, "synced", synced)
    monkeypatch.setattr(Ledger, "commit", committed)
    monkeypatch.setattr(story, "wait_until_healthy", lambda context, release: made.do("check"))
    monkeypatch.setattr(Git, "put_back", lambda git, branch, commit: made.do(f"{branch} at {commit[:2]}"))
    monkeypatch.setattr(Git, "unpin", lambda git, number: made.do(f"unpin {number}"))
    monkeypatch.setattr(Agent, "connect", lambda path: nullcontext(made))
    return made


@pytest.fixture
def context(ledger: Ledger, recorder: Recorder) -> AppContext:
    for path in (ledger.paths.slugs, ledger.paths.repo):
        path.mkdir(parents=True)
    effects: Any = recorder
    return AppContext(ledger.paths.layout, Settings(domain="example.org"), ledger, effects, effects)


def pushed(context: AppContext, commit: str | None = "a" * 40, **values: Any) -> Release:
    """A release that a push opened."""
    return context.ledger.open_release(
        Change.DEPLOY,
        "alice",
        builds=True,
        origin=Origin("git", commit, ref="main") if commit else None,
        **values,
    )


def deployed(context: AppContext, recorder: Recorder, release: Release) -> list[str]:
    """The effects of a deploy, in order."""
    del recorder.done[:]
    story.deploy(context, release)
    return list(recorder.done)


def test_a_push_is_built_checked_switched_to_and_then_followed(context: AppContext, recorder: Recorder) -> None:
    done = deployed(context, recorder, pushed(context))
    assert [what for what in done if what != "proxy"] == [
        *(what for what in LIVE if what != "proxy"), "boot_with", "main at aa",
    ]  # fmt: skip
    assert done.index("commit") < len(done) - 1 - done[::-1].index("proxy"), "the vhost follows the switch"
    release = context.ledger.current()
    assert release and (release.number, release.status) == (1, Status.LIVE)
    assert recorder.said[-1].startswith("v1 is live at ")


def test_a_config_change_builds_nothing_and_runs_no_release_command(context: AppContext, recorder: Recorder) -> None:
    story.deploy(context, pushed(context))
    base = context.ledger.current()
    done = deployed(context, recorder, context.ledger.open_release(Change.CONFIG, "bob", base))
    assert done == ["start", "adopt", "read_config", "check", "commit", "boot_with", "proxy", "main at aa"]
    current = context.ledger.current()
    assert current and (current.number, current.slug) == (2, 1)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("build", BuildFailed("no")), ("release_command", BuildFailed("no")), ("start", HostFault("no")),
        ("check", Cancelled("by alice")), ("commit", OSError(28, "full")), ("check", ValueError("a bug")),
    ],
)  # fmt: skip
def test_what_fails_before_the_switch_is_taken_away_and_the_old_release_serves(
    step: str, error: BaseException, context: AppContext, recorder: Recorder
) -> None:
    story.deploy(context, pushed(context))
    recorder.fails[step] = error
    release = pushed(context, "b" * 40)
    with pytest.raises(type(error)):
        deployed(context, recorder, release)
    # What is built is kept for the next try.
    assert recorder.done[-3:] == [step, "cancel", "take_away" if step == "build" else "put_aside"]
    assert context.ledger.current_number() == 1
    ended = context.ledger.release(2)
    assert ended.status is (Status.CANCELLED if isinstance(error, Cancelled) else Status.FAILED) and ended.reason
    assert "main at bb" not in recorder.done, "the branch was moved to a commit that is not live"


def test_of_the_tries_that_failed_the_last_environment_is_kept_and_no_other(
    context: AppContext, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.fails["check"] = Failure("no")
    gone: list[list[int]] = []
    monkeypatch.setattr(recorder, "prune", lambda app, numbers: gone.append(numbers), raising=False)
    for number in (1, 2):
        context.ledger.paths.release(number).slug.mkdir()
        with pytest.raises(Failure):
            deployed(context, recorder, pushed(context))
        assert recorder.done[-1] == "put_aside"
    assert gone == [[1]], "a machine would be filled by tries"


def test_what_fails_after_the_switch_leaves_the_new_release_live(context: AppContext, recorder: Recorder) -> None:
    recorder.fails["boot_with"] = HostFault("no")
    with pytest.raises(HostFault):
        story.deploy(context, pushed(context))
    assert context.ledger.current_number() == 1 and "take_away" not in recorder.done


def test_a_release_that_builds_and_came_with_nothing_to_build_fails(context: AppContext, recorder: Recorder) -> None:
    """It went live once: without a process, without a slug, with an empty vhost."""
    story.deploy(context, pushed(context))
    release = pushed(context, commit=None)
    with pytest.raises(Failure, match="nothing to build"):
        deployed(context, recorder, release)
    assert not {"start", "commit"} & {*recorder.done}
    assert context.ledger.current_number() == 1 and context.ledger.release(2).status is Status.FAILED


def test_the_config_vars_before_the_first_push_go_live_with_nothing_to_run(
    context: AppContext, recorder: Recorder
) -> None:
    done = deployed(context, recorder, context.ledger.open_release(Change.CONFIG, "bob"))
    assert "build" not in done and "commit" in done
    assert "holds the config vars" in recorder.said[-1]


def test_a_killed_worker_s_release_is_put_away_before_the_next(context: AppContext, recorder: Recorder) -> None:
    left = pushed(context)
    done = deployed(context, recorder, pushed(context, "b" * 40))
    assert done[0] == "take_away" and context.ledger.release(left.number).status is Status.FAILED
    assert context.ledger.current_number() == 2


def test_a_release_that_lacks_only_a_secret_is_given_one_and_started_again_once(
    context: AppContext, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.fails["check"] = Unhealthy("no", details=["KeyError: 'SECRET_KEY'"])
    known: dict[str, str] = {}

    def keep(made: Recorder, app: str, number: int, base: int, given: dict[str, str], unset: list[str]) -> list[str]:
        known.update(given)
        return list(given)

    monkeypatch.setattr(Recorder, "snapshot_config", keep, raising=False)
    monkeypatch.setattr(Recorder, "read_config", lambda made, app, number: dict(known), raising=False)
    release = pushed(context)
    with pytest.raises(Unhealthy):
        deployed(context, recorder, release)
    assert [what for what in recorder.done if what == "check"] == ["check", "check"], "whoever has one wants another"
    assert len(known["SECRET_KEY"]) >= 48 and not any(known["SECRET_KEY"] in line for line in recorder.said)


def test_a_release_that_lacks_only_a_place_to_write_is_given_it_and_started_again(
    context: AppContext, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = Unhealthy("no", details=["OSError: [Errno 30] Read-only file system: 'data'"])
    recorder.fails["check"] = failure
    monkeypatch.setattr(Recorder, "output", lambda recorder: nullcontext(0), raising=False)

    def mount(made: Recorder, app: str, number: int, output: int) -> BuildResult:
        made.do("mount")
        del made.fails["check"]
        return BuildResult(0, "new")

    monkeypatch.setattr(Recorder, "mount", mount, raising=False)
    release = pushed(context)
    context.ledger.paths.release(release.number).build_plan.write_text('{"storage": []}')
    done = deployed(context, recorder, release)
    assert [what for what in done if what in ("start", "check", "mount", "commit")] == [
        "start", "check", "mount", "start", "check", "commit",
    ]  # fmt: skip
    live = context.ledger.current()
    assert live is not None and (live.storage, live.digest) == ((("data", "data"),), "new")
    assert context.ledger.state().storage == (("data", "data"),)
