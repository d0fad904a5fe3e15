"""How values are kept as JSON: each field has one row that says everything about it.

A record is a frozen dataclass below `Record`. The metadata of a field, made by `own` or `carried`, is its row: how its
JSON is read, since which format it is written, and whether a release that is not built takes it over from its base.
Writing, reading, defaults for an older record and unknown fields of a newer one follow from the rows.

Reading is the trust boundary (the agent reads what `shipit` wrote): a value is what its row allows, or `Corrupt` is
raised.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from receiver.errors import Failure, HostFault

MAX_SIZE = 4 * 2**20
# The beginning of a file with a checksum; eight hexadecimal digits and the end of the line follow.
_SUM = b'{\n "sum": "'


class Corrupt(HostFault):
    """A file of the ledger is not what shipit wrote. Nothing is guessed from it; running processes go on."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Mend it: shipit doctor --fix")


class Newer(HostFault):
    """A newer shipit wrote a record; this one cannot know what its unknown fields mean."""

    def __init__(self, what: str, format: Format) -> None:
        super().__init__(
            f"{what} was written by a newer shipit (format {format}; this one knows {FORMAT}).",
            holds="What runs goes on running.",
            hint="Put live a release that this shipit made (shipit rollback, or a push), or install the newer one again.",
        )


class Format(NamedTuple):
    """A record's format. A higher `minor` adds fields, which an older shipit keeps unchanged; a higher `major` changes
    the meaning of fields, and an older shipit refuses it."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


FIRST = Format(1, 0)  # of records without a format number
FORMAT = Format(1, 4)

# A reader makes a value of parsed JSON, or raises Corrupt, ValueError or a Failure. The format is the whole record's.
Read = Callable[[Any, Format], Any]
R = TypeVar("R", bound="Record")


class Row(NamedTuple):
    """The description of a field. `since`: the format from which on every record has it; if that is not the first, the
    field has a default."""

    read: Read
    carried: bool
    since: Format


def own(read: Read, *, since: Format = FIRST) -> Mapping[str, Row]:
    """The row of a field that belongs to one release only."""
    return {"row": Row(read, False, since)}


def carried(read: Read, *, since: Format = FIRST) -> Mapping[str, Row]:
    """The row of a field that a config change, a scale, a restart or a rollback takes over from its base."""
    return {"row": Row(read, True, since)}


@dataclass(frozen=True)
class Record:
    """`unknown`: fields of a newer shipit that this one does not know. They are written back unchanged."""

    unknown: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False, hash=False)

    @classmethod
    def upgraded(cls, data: dict[str, Any], format: Format) -> dict[str, Any]:
        """Data of an older format in today's form: for fields that replaced others."""
        return data


def rows(kind: type[Record]) -> dict[str, Row]:
    """Name → row, for each field of a class of records except `unknown`."""
    found: dict[str, Row] | None = kind.__dict__.get("_rows")
    if found is None:
        found = {f.name: f.metadata["row"] for f in fields(kind) if f.metadata}
        kind._rows = found  # type: ignore[attr-defined]
    return found


def taken_over(base: Record) -> dict[str, Any]:
    """The carried fields of a record, without unknown fields in them: the next release's maker does not know these."""
    return {name: _known(getattr(base, name)) for name, row in rows(type(base)).items() if row.carried}


def _known(value: Any) -> Any:
    if isinstance(value, Record):
        return type(value)(**{name: _known(getattr(value, name)) for name in rows(type(value))})
    if isinstance(value, tuple):
        return tuple(map(_known, value))
    return value


def encode(record: Record) -> bytes:
    """Canonical JSON with one trailing newline. Its first member, `sum`, is a checksum of every byte below its line."""
    text = json.dumps(plain(record), indent=1, sort_keys=True, ensure_ascii=True)
    return _summed((text.removeprefix("{\n") + "\n").encode())


def _summed(rest: bytes) -> bytes:
    """A whole file: the two lines with the checksum, and the rest."""
    # CRC-32 finds every change within 32 bits in a row, and all but 1 of 2³² others. Importing hashlib takes 2.5 ms.
    return b'%s%08x",\n%s' % (_SUM, zlib.crc32(rest), rest)


def plain(value: Any) -> Any:
    """A value in JSON's types."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Record):
        return {**value.unknown, **{name: plain(getattr(value, name)) for name in rows(type(value))}}
    if isinstance(value, Format):
        return str(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def decode(kind: type[R], raw: bytes, what: str) -> R:
    """Parse a whole file that `encode` wrote, here or in another version; `what` is its name.

    Raises Newer if its major format is newer, else Corrupt for anything that no shipit writes.
    """
    try:
        data = _load(raw, what)
        format = _format(data.get("format", str(FIRST)))
        if format.major > FORMAT.major:
            raise Newer(what, format)
        return read_record(kind, kind.upgraded(data, format), format, what)
    except (Corrupt, Newer):
        raise
    except (Failure, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Corrupt(f"The ledger holds a bad value: {error}") from error


def _load(raw: bytes, what: str) -> dict[str, Any]:
    if len(raw) > MAX_SIZE:
        raise Corrupt(f"{what} is larger than {MAX_SIZE // 2**20} MiB.")
    # An older version wrote no sum. Damage hardly looks like that: all of the line would be gone, and the rest be JSON.
    if raw.startswith(_SUM):
        rest = raw[len(_summed(b"")) :]
        if raw != _summed(rest):
            raise Corrupt(f"{what} does not fit its checksum.")
        raw = b"{" + rest
    data = json.loads(raw)
    if type(data) is not dict:
        raise Corrupt(f"{what} is not an object.")
    return data


def read_record(kind: type[R], data: Any, format: Format, what: str) -> R:
    """Make a record of parsed JSON."""
    if type(data) is not dict:
        raise Corrupt(f"{what} is not an object.")
    values: dict[str, Any] = {}
    name = ""
    try:
        for name, (read, _, since) in rows(kind).items():
            if name in data:
                values[name] = read(data[name], format)
            elif since <= format:
                raise Corrupt(f"{what}: {name} is missing.")
    except (Corrupt, Newer):
        raise
    except (Failure, ValueError, TypeError) as error:
        raise Corrupt(f"{what}: {name} {error}") from error
    if len(data) > len(values):
        unknown = {name: data[name] for name in data if name not in values}
        if format <= FORMAT:
            raise Corrupt(f"{what}: unknown field {min(unknown)!r}.")
        values["unknown"] = unknown
    return kind(**values)


def _format(text: Any) -> Format:
    """Parse `1.4`; returns at least `FORMAT`, since the record is written back with every field that this shipit
    knows."""
    if type(text) is not str or len(text) > 20:
        raise ValueError("is not a format")
    major, _, minor = text.partition(".")
    found = Format(int(major), int(minor))
    if str(found) != text or found < FIRST:
        raise ValueError("is not a format")
    return found


def format_number(value: Any, format: Format) -> Format:
    """The format that the record will have when it is written again."""
    return max(_format(value), FORMAT)


def text(value: Any, format: Format) -> str:
    if type(value) is not str:
        raise ValueError("is not text")
    return value


def flag(value: Any, format: Format) -> bool:
    if type(value) is not bool:
        raise ValueError("is neither true nor false")
    return value


def whole(high: int = 2**53, low: int = 0) -> Read:
    """A whole number from `low` to `high`."""

    def read(value: Any, format: Format) -> int:
        if type(value) is not int:
            raise ValueError("is not a whole number")
        if not low <= value <= high:
            raise ValueError("is out of range")
        return value

    return read


def real(value: Any, format: Format) -> float:
    """A time, or a duration, in seconds."""
    if type(value) not in (int, float):
        raise ValueError("is not a number")
    # False for NaN.
    if not 0 <= value <= 2**53:
        raise ValueError("is out of range")
    return float(value)


def parsed(parse: Callable[[str], Any]) -> Read:
    """A text that `parse` (of names.py or an enumeration) accepts."""

    def read(value: Any, format: Format) -> Any:
        if type(value) is not str:
            raise ValueError("is not text")
        return parse(value)

    return read


def optional(read: Read) -> Read:
    """A value, or null."""
    return lambda value, format: None if value is None else read(value, format)


def many(read: Read) -> Read:
    """A list."""

    def read_all(value: Any, format: Format) -> tuple[Any, ...]:
        if type(value) is not list:
            raise ValueError("is not a list")
        return tuple([read(item, format) for item in value])

    return read_all


def pairs(first: Read, second: Read) -> Read:
    """A list of lists of two."""

    def read(value: Any, format: Format) -> tuple[Any, Any]:
        if type(value) is not list or len(value) != 2:
            raise ValueError("holds a bad pair")
        return first(value[0], format), second(value[1], format)

    return many(read)


def objects(value: Any, format: Format) -> Mapping[str, Any]:
    """Name → object; whoever uses an object reads its content."""
    if type(value) is not dict or any(type(item) is not dict for item in value.values()):
        raise ValueError("is not a table of objects")
    return value


def nested(kind: type[Record]) -> Read:
    """A record inside of a record."""
    return lambda value, format: read_record(kind, value, format, kind.__name__.lower())
