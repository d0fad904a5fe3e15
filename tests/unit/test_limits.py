"""Limits that are set on the server: what is parsed, and that they lie over those of shipit.yml, for later releases, too."""

from __future__ import annotations

import pytest

from receiver.cli.resource import share
from receiver.engines.base import ProcessState, ProcessStatus
from receiver.errors import Rejected
from receiver.model import AppState, Check, CheckKind, Limits, Listen, ProcessType, decode_app_state
from receiver.names import AppName, TypeName
from receiver.ops.limits import limited, merged, parse, shown
from receiver.records import Corrupt, encode

WEB, WORKER = TypeName("web"), TypeName("worker")


def process(kind: TypeName, **values: int) -> ProcessType:
    return ProcessType(kind, "x", Listen.NONE, Check(CheckKind.UPTIME), limits=Limits(**values))


def test_a_limit_is_written_as_in_shipit_yml_or_none() -> None:
    assert (parse("memory", "512M"), parse("memory", "2G"), parse("cpu", "150%"), parse("tasks", "64")) == (
        512,
        2048,
        150,
        64,
    )
    assert parse("memory", "none") == 0 and (shown("memory", 512), shown("cpu", 0)) == ("512M", "none")
    for what, text in (("memory", "512"), ("memory", "0M"), ("cpu", "1.5"), ("tasks", "-1"), ("tasks", "9999999")):
        with pytest.raises(Rejected, match="is no limit of"):
            parse(what, text)


def test_what_is_set_lies_over_shipit_yml_and_leaves_the_rest() -> None:
    wishes = merged((), [WEB], {"memory": 512})
    wishes = merged(wishes, [WEB, WORKER], {"cpu": 50})
    found = limited([process(WEB, memory=100, tasks=9), process(WORKER, memory=64)], wishes)
    assert [one.limits for one in found] == [Limits(512, 50, 9), Limits(64, 50, 0)]
    assert limited(found, merged(wishes, [WEB], {"memory": 0}))[0].limits == Limits(0, 50, 9)


def test_it_comes_through_the_record_and_nothing_else_does() -> None:
    state = AppState(AppName("blog"), 1.0, limits=merged((), [WEB], {"memory": 512}))
    assert decode_app_state(encode(state)) == state
    for name in ("web", "web.disk", "Web.memory", "web.memory\n"):
        with pytest.raises(Corrupt):
            decode_app_state(encode(AppState(AppName("blog"), 1.0, limits=((name, 1),))))


def test_the_busiest_process_is_shown_and_more_than_one_core_is_more_than_100_per_cent() -> None:
    def used(cpu: float, since: float) -> ProcessStatus:
        return ProcessStatus(7, WEB, 1, ProcessState.RUNNING, since=since, cpu=cpu)

    assert share([used(5, 900.0), used(250, 900.0)], 1000.0) == "250% "
    assert share([used(0.0, 900.0), used(3, 0.0)], 1000.0) == "" == share([], 1000.0)
    assert share([used(0.5, 2000.0)], 1000.0) == "50% ", "a clock that was set back"
