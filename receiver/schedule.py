"""When a process type runs by the clock: five-field cron, or a calendar event as systemd.time(7) writes it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from receiver.errors import Rejected
from receiver.records import Record, flag, many, own, parsed, text, whole

A_DAY = 86_400

_CALENDAR = re.compile(r"[A-Za-z0-9*,./:~ _+-]{1,500}", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_CRON = re.compile(r"@[a-z]+|(?:[0-9*/,-]+\s+){3}[0-9A-Za-z*/,-]+\s+[0-9A-Za-z*/,-]+", re.ASCII)
_ITEM = re.compile(r"(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([0-9]{1,3}))?", re.ASCII)
_MACROS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# Name, lowest and highest value, and the names that stand for numbers.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name.lower(): number for number, name in enumerate(_DAYS)}),
)  # fmt: skip
HINT = "Five fields as in crontab(5): 30 3 * * *\nor a calendar event as in systemd.time(7): Mon..Fri 08:00"


def calendar(given: str) -> str:
    """Parse a calendar event: only checks that its characters may stand in a unit file. systemd checks whether it is
    valid. Raises Rejected."""
    if not _CALENDAR.fullmatch(given) or given != " ".join(given.split()):
        raise Rejected(f"{given[:60]!a} is no time.", hint=HINT)
    return given


@dataclass(frozen=True)
class Schedule(Record):
    """`said` is the text as written, `calendars` the same in systemd.time(7)'s form: it runs when one of them comes.
    `overlap`: also while an earlier run goes on. `missed`: a run that was missed while the machine was off is made up
    for. `timeout`: the seconds after which a run is ended."""

    said: str = field(metadata=own(text))
    calendars: tuple[str, ...] = field(metadata=own(many(parsed(calendar))))
    overlap: bool = field(default=False, metadata=own(flag))
    missed: bool = field(default=False, metadata=own(flag))
    timeout: int = field(default=A_DAY, metadata=own(whole(31 * A_DAY, low=1)))


def schedule(
    said: str, zone: str = "", *, overlap: bool = False, missed: bool = False, timeout: int = A_DAY
) -> Schedule:
    """Read either form; `zone` is a time zone (""= the server's). Raises Rejected."""
    behind = f" {known_zone(zone)}" if zone else ""
    events = from_cron(said) if is_cron(said) else (calendar(" ".join(said.split())),)
    return Schedule(f"{said}{behind}", tuple(f"{event}{behind}" for event in events), overlap, missed, timeout)


def is_cron(said: str) -> bool:
    """Whether it is in crontab(5)'s form."""
    return _CRON.fullmatch(said.strip()) is not None


def known_zone(zone: str) -> str:
    """Parse the name of a time zone that this machine knows; raises Rejected."""
    from zoneinfo import ZoneInfo

    try:
        if _ZONE.fullmatch(zone):
            ZoneInfo(zone)
            return zone
    except (OSError, ValueError, KeyError):
        pass
    raise Rejected(
        f"{zone[:60]!a} is no time zone that is known here.", hint="A time zone is written Europe/Berlin or UTC."
    )


def from_cron(said: str) -> tuple[str, ...]:
    """Five fields of crontab(5) as calendar events of systemd.time(7); raises Rejected.

    There are two if cron would run on a day of the month *or* a day of the week.
    """
    words = _MACROS.get(said.strip(), said).split()
    if len(words) != 5:
        more = (
            "There is no @reboot: what is to run when the app starts is a process type. "
            if said[:7] == "@reboot"
            else ""
        )
        raise Rejected(f"{more}{said[:60]!a} is no time.", hint=HINT)
    minutes, hours, days, months, weekdays = (_values(word, *about) for word, about in zip(words, _FIELDS, strict=True))
    month, at = _listed(months), f"{_listed(hours)}:{_listed(minutes)}:00"
    names = ",".join(_DAYS[day] for day in sorted({day % 7 for day in weekdays})) if weekdays else ""
    # crontab(5): a field that begins with * does not choose; only if both choose, either is enough.
    either = not (words[2].startswith("*") or words[4].startswith("*"))
    if either and not (days and weekdays):
        return (f"*-{month}-* {at}",)
    if days and not either and months and min(days) > max(_LONGEST[number - 1] for number in months):
        raise Rejected(f"{said[:60]!a} never comes: no such month has a day {min(days)}.")
    if either:
        return f"*-{month}-{_listed(days)} {at}", f"{names} *-{month}-* {at}"
    return (f"{names} *-{month}-{_listed(days)} {at}".strip(),)


def _values(word: str, name: str, low: int, high: int, known: dict[str, int]) -> list[int]:
    """The numbers that a field stands for; none if it means all."""
    found: set[int] = set()
    for item in word.lower().split(","):
        match = _ITEM.fullmatch(item)
        if not match:
            raise Rejected(f"{item[:20]!a} is no {name} in {word[:40]!a}.", hint=HINT)
        first, last, step = match[1], match[2], int(match[3] or 1)
        begin = low if first is None else _number(first, name, low, high, known)
        end = high if first is None or (last is None and match[3]) else begin
        if last is not None:
            end = _number(last, name, low, high, known)
        if begin > end or step == 0:
            raise Rejected(f"{item[:20]!a} is no {name}: it holds nothing.", hint=HINT)
        found |= set(range(begin, end + 1, step))
    every = range(low, high + 1 - (name == "day of the week"))
    return [] if found >= set(every) else sorted(found)


def _number(word: str, name: str, low: int, high: int, known: dict[str, int]) -> int:
    number = known.get(word, int(word) if word.isdigit() and len(word) < 4 else -1)
    if not low <= number <= high:
        raise Rejected(f"{word[:20]!a} is no {name}: {low}–{high}.", hint=HINT)
    return number


def _listed(values: list[int]) -> str:
    return ",".join(f"{value:02}" for value in values) or "*"
