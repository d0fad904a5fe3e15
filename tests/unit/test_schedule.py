"""Cron's five fields as systemd's calendar events: written down here, and compared with what systemd makes of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_units import release, same_as_golden
from trees import FakeTree

from receiver.engines import all as engines
from receiver.engines.systemd import units
from receiver.errors import Rejected
from receiver.manifest import Manifest
from receiver.model import Listen, decode_release
from receiver.ops.all import sections
from receiver.paths import Layout
from receiver.records import encode
from receiver.runtimes.read import read_manifest
from receiver.schedule import calendar, from_cron, is_cron, schedule


@pytest.mark.parametrize(
    ("cron", "events"),
    [
        ("* * * * *", ["*-*-* *:*:00"]),
        ("30 3 * * *", ["*-*-* 03:30:00"]),
        ("*/15 * * * *", ["*-*-* *:00,15,30,45:00"]),
        ("5-20/5 8-10 * * *", ["*-*-* 08,09,10:05,10,15,20:00"]),
        ("50/5 0 * * *", ["*-*-* 00:50,55:00"]),
        ("0 0 1 1,7 *", ["*-01,07-01 00:00:00"]),
        ("0 9 * * mon-fri", ["Mon,Tue,Wed,Thu,Fri *-*-* 09:00:00"]),
        ("0 9 * Jan 7", ["Sun *-01-* 09:00:00"]),
        ("0 9 * * 5-7", ["Sun,Fri,Sat *-*-* 09:00:00"]),
        ("0 9 * * 0-6", ["*-*-* 09:00:00"]),
        ("0 9 13 * 5", ["*-*-13 09:00:00", "Fri *-*-* 09:00:00"]),
        ("0 9 13 * 0-6", ["*-*-* 09:00:00"]),
        ("0 9 */10 * 5", ["Fri *-*-01,11,21,31 09:00:00"]),
        ("0 0 29 2 *", ["*-02-29 00:00:00"]),
        ("@daily", ["*-*-* 00:00:00"]),
        ("@weekly", ["Sun *-*-* 00:00:00"]),
    ],
)
def test_a_cron_expression_is_these_calendar_events(cron: str, events: list[str]) -> None:
    assert is_cron(cron) and list(from_cron(cron)) == events
    assert list(schedule(cron, "Europe/Berlin").calendars) == [f"{event} Europe/Berlin" for event in events]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("60 * * * *", "'60' is no minute"), ("* 24 * * *", "is no hour"), ("* * 0 * *", "is no day of the month"),
        ("* * * 13 *", "is no month"), ("* * * * 8", "is no day of the week"), ("*/0 * * * *", "it holds nothing"),
        ("20-10 * * * *", "it holds nothing"), ("1,,2 * * * *", "is no minute"), ("0 0 30 2 *", "never comes"),
        ("@reboot", "There is no @reboot"), ("@often", "is no time"), ("* * * * * x\nUser=root", "is no time"),
        ("%n", "is no time"), ("", "is no time"), ("Mon 10:00; rm", "is no time"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_the_part_that_is_wrong(said: str, told: str) -> None:
    with pytest.raises(Rejected, match=re.escape(told)):
        schedule(said)


def test_a_time_zone_is_one_that_the_machine_knows() -> None:
    for zone in ("Mars/Olympus", "../../etc/passwd", "Europe/Berlin\nUser=root", ""):
        if zone:
            with pytest.raises(Rejected, match="no time zone"):
                schedule("0 3 * * *", zone)
    assert schedule("Mon..Fri 08:00", "UTC").calendars == ("Mon..Fri 08:00 UTC",)


@given(st.text())
def test_nothing_but_one_plain_line_gets_into_a_unit(text: str) -> None:
    try:
        found = schedule(text).calendars
    except Rejected:
        return
    for event in found:
        assert calendar(event) == event and "\n" not in event and "%" not in event


@st.composite
def crons(draw: st.DrawFn) -> str:
    def word(low: int, high: int) -> str:
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, 9))
        return draw(
            st.sampled_from(
                ["*", f"*/{step}", f"{first}", f"{first}-{last}", f"{first}-{last}/{step}", f"{low},{last}"]
            )
        )

    return " ".join([word(0, 59), word(0, 23), word(1, 28), word(1, 12), word(0, 7)])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")
@settings(max_examples=25, deadline=None)
@given(crons())
def test_systemd_runs_it_when_cron_would(cron: str) -> None:
    begin = datetime(2027, 2, 27, 23, 30, tzinfo=timezone.utc)
    elapsed: list[datetime] = []
    for event in schedule(cron, "UTC").calendars:
        argv = ["systemd-analyze", "calendar", "--iterations=3", f"--base-time={begin:%Y-%m-%d %H:%M:%S} UTC", event]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, env={"TZ": "UTC"}).stdout
        times = re.findall(r"(?:Next elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC", said)
        elapsed += [datetime.strptime(t, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc) for t in times]
    assert sorted(set(elapsed))[:3] == by_hand(cron, begin)


def by_hand(cron: str, begin: datetime) -> list[datetime]:
    """The next three minutes at which crontab(5) says that it runs."""

    def fits(word: str, low: int, high: int, value: int) -> bool:
        for item in word.split(","):
            span, _, step = item.partition("/")
            first, _, last = span.partition("-")
            begin, end = (low, high) if span == "*" else (int(first), int(last or first))
            if value in range(begin, end + 1, int(step or 1)):
                return True
        return False

    minute, hour, day, month, weekday = cron.split()
    found: list[datetime] = []
    date = begin.replace(hour=0, minute=0)
    while len(found) < 3:
        number = date.isoweekday() % 7
        a, b = fits(day, 1, 31, date.day), fits(weekday, 0, 7, number) or (number == 0 and fits(weekday, 0, 7, 7))
        either = not (day.startswith("*") or weekday.startswith("*"))
        if fits(month, 1, 12, date.month) and ((a or b) if either else (a and b)):
            for at in (date + timedelta(minutes=n) for n in range(24 * 60)):
                if at > begin and fits(hour, 0, 23, at.hour) and fits(minute, 0, 59, at.minute):
                    found.append(at)
        date += timedelta(days=1)
    return found[:3]


def manifest(**files: str) -> Manifest:
    named = {name.replace("_", "."): text for name, text in files.items()}
    return read_manifest(FakeTree(named), sections())


CRON = '{"cron": [{"command": "echo a", "schedule": "0 3 * * *", "concurrency_policy": "allow"}]}'


def test_each_manifest_makes_a_process_type_of_what_runs_by_the_clock() -> None:
    found = manifest(
        Procfile="web: x\nnightly: y\ncron: 0 4 * * * z\n", app_json=CRON,
        shipit_yml="processes:\n  nightly: {schedule: {at: 'Mon 02:00', zone: UTC, missed: true, timeout: 60}, memory: 64M}\n",
    )  # fmt: skip
    timed = {process.type: process.schedule for process in found.processes if process.schedule}
    assert timed == {
        "nightly": schedule("Mon 02:00", "UTC", missed=True, timeout=60),
        "cron": schedule("0 4 * * *"),
        "cron-1": schedule("0 3 * * *", overlap=True),
    }
    assert dict(found.formation) == {"web": 1}, "it has no count"
    assert found.processes[1].limits.memory == 64 and found.processes[3].listen is Listen.NONE


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{nightly: {schedule: '61 * * * *'}}", "shipit.yml:1: '61' is no minute"),
        ("{nightly: {schedule: {zone: UTC}}}", "processes.nightly.schedule must be a time such as"),
        ("{nightly: {schedule: '0 3 * * *', count: 2}}", "nightly runs by the clock"),
        ("{web: {schedule: '0 3 * * *'}}", "web runs by the clock"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_its_line(settings: str, told: str) -> None:
    with pytest.raises(Rejected) as refused:
        manifest(Procfile="web: x\nnightly: y\n", shipit_yml=f"processes: {settings}\n")
    assert told in refused.value.message


def test_its_units_are_these_and_come_through_the_record() -> None:
    made = manifest(
        Procfile="web: x\nnightly: y\n",
        app_json=CRON,
        shipit_yml="processes:\n  nightly: {schedule: {at: '30 3 1 * 1', missed: true}}\n",
    )
    known = release()
    known = decode_release(
        encode(type(known)(**{**vars(known), "processes": made.processes, "formation": made.formation}))
    )
    files = units.timer_files(known, Layout())
    assert sorted(files) == [
        "shipit-blog-cron-1-v8@.service", "shipit-blog-cron-1-v8@start.service", "shipit-blog-cron-1-v8@t1.timer",
        "shipit-blog-nightly-v8@t1.service", "shipit-blog-nightly-v8@t1.timer",
    ]  # fmt: skip
    for name in (
        "shipit-blog-cron-1-v8@start.service",
        "shipit-blog-nightly-v8@t1.service",
        "shipit-blog-nightly-v8@t1.timer",
    ):
        same_as_golden(name, files[name])
    assert not [name for name in units.timer_files(known, Layout(), ["nightly"]) if "nightly" in name]  # type: ignore[list-item]


def test_the_engines_of_a_machine_can_be_asked_for_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading an engine's module `engine` makes that the package's attribute of this name."""
    monkeypatch.setattr(engines.systemd, "here", lambda: True)
    assert [engines.here(Layout()).of(release()).name for _ in range(2)] == ["systemd", "systemd"]


def test_without_systemd_a_schedule_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.systemd, "here", lambda: False)
    made = manifest(Procfile="web: x\ncron1: 0 3 * * * ./nightly\n")
    with pytest.raises(Rejected, match="nothing here keeps time") as refused:
        engines.refuse_untimely(Layout(), made.processes)
    assert "shipit run APP './nightly'" in refused.value.hint
    engines.refuse_untimely(Layout(), made.processes[:1])
