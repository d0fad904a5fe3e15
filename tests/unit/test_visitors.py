"""What takes an app away from its visitors has to be asked for; and what we say of its trouble."""

from __future__ import annotations

import pytest

from receiver.errors import Rejected
from receiver.model import WEB, AppState, Change, Check, CheckKind, Listen, ProcessType, Release, Status
from receiver.names import AppName, TypeName
from receiver.proxy.endpoint import takes_requests
from receiver.story.advice import advice
from receiver.story.visitors import refuse_to_drop_web

BLOG = AppName("blog")


def process(kind: str, listen: Listen = Listen.NONE) -> ProcessType:
    return ProcessType(TypeName(kind), "run", listen, Check(CheckKind.UPTIME))


def release(*processes: ProcessType, count: int = 1) -> Release:
    formation = tuple((p.type, count) for p in processes)
    return Release(
        app=BLOG, number=4, change=Change.DEPLOY, status=Status.LIVE, by="a", created=0.0, slug=4, processes=processes,
        formation=formation,
    )  # fmt: skip


SERVING = release(process("web", Listen.SOCKET), process("worker"))


@pytest.mark.parametrize(
    ("processes", "counts", "said"),
    [
        ([process("wbe")], {}, "no process type 'web', but 'wbe'"),
        ([process("worker")], {"worker": 1}, "no process type 'web'"),
        ([process("web", Listen.SOCKET)], {"web": 0}, "no web process would run"),
        ([process("web")], {"web": 1}, "listens nowhere"),
    ],
)
def test_what_would_take_a_serving_web_away_is_refused_and_told_how_to_mean_it(
    processes: list[ProcessType], counts: dict[TypeName, int], said: str
) -> None:
    state = AppState(app=BLOG, created=0.0)
    with pytest.raises(Rejected) as refused:
        refuse_to_drop_web(SERVING, state, processes, counts, "this way")
    assert said in refused.value.message and refused.value.hint == "this way" and "v4" in refused.value.holds


def test_what_takes_nothing_away_needs_no_asking() -> None:
    state, worker = AppState(app=BLOG, created=0.0), [process("worker")]
    for current in (None, release(process("worker")), release(process("web", Listen.PORT), count=0)):
        assert not takes_requests(current)
        refuse_to_drop_web(current, state, worker, {}, "")
    refuse_to_drop_web(SERVING, AppState(app=BLOG, created=0.0, stopped=True), worker, {}, "")
    refuse_to_drop_web(SERVING, state, [process("web", Listen.PORT)], {WEB: 1}, "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("OSError: [Errno 30] Read-only file system: '/srv/logs/app.log'", "$DATA_DIR/app.log"),
        ("_gdbm.error: [Errno 30] Read-only file system: 'celerybeat-schedule'", "$DATA_DIR/celerybeat-schedule"),
        ("Error: EROFS: read-only file system, mkdir 'uploads'", "$DATA_DIR/uploads"),
        ("django.db.utils.OperationalError: unable to open database file", "$DATA_DIR"),
        ("PermissionError: [Errno 13] Permission denied: '/var/lib/shipit/apps/blog/slugs/v3/x.db'", "$DATA_DIR/x.db"),
        ("Invalid HTTP_HOST header: 'blog.example.org'. You may need to add", "Add blog.example.org to ALLOWED_HOSTS"),
        ("PermissionError: [Errno 13] Permission denied: '/etc/shadow'", ""),
        ("all is well", ""),
    ],
)
def test_trouble_that_we_know_is_answered_with_what_to_write(line: str, told: str) -> None:
    said = advice(BLOG, ["Traceback (most recent call last):", line, ""])
    assert told in said and bool(said) == bool(told)
