"""An app's own directives for nginx (`nginx:set`): they are parsed here, and written anew from the parsed values.

No text of a user reaches nginx: each directive is one of the few below, and each of its words has the form that is
given there; anything else is refused, with its line. So no directive can end its block, name a file, a network address
or a variable, or affect another app. Directives that shipit itself writes for a server (shipit.yml, `proxy:`) are not
allowed at the top; in a `location` they may have another value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from receiver import names
from receiver.errors import Rejected
from receiver.paths import AppPaths
from receiver.records import FORMAT, Format, Record, decode, format_number, own
from receiver.serving import header, redirect

MAX_SIZE = 16 * 1024
MOST = 100
LONGEST_WORD = 4000

Check = Callable[[Sequence[str]], bool]


def _words(*patterns: str) -> Check:
    """So many words, each with its pattern."""
    compiled = [re.compile(pattern, re.ASCII) for pattern in patterns]
    return lambda words: (
        len(words) == len(compiled) and all(form.fullmatch(word) for form, word in zip(compiled, words, strict=True))
    )


def _mime(words: Sequence[str]) -> bool:
    return 0 < len(words) <= 40 and all(re.fullmatch(r"[a-z0-9]+/[a-z0-9.+-]{1,80}", word, re.ASCII) for word in words)


def _add_header(words: Sequence[str]) -> bool:
    if len(words) not in (2, 3) or words[2:] not in ([], ["always"]):
        return False
    header(words[0], words[1])
    return True


def _return(words: Sequence[str]) -> bool:
    """A status that shipit does not use itself, and an address for redirects."""
    if len(words) == 1:
        return words[0] in ("204", "403", "404", "410")
    if len(words) != 2 or words[0] not in ("301", "302", "303", "307", "308"):
        return False
    # The path that was asked for may follow an address that has no path.
    target, asked = words[1].removesuffix("$request_uri"), words[1].endswith("$request_uri")
    redirect("/x", target)
    return "*" not in target and not (asked and (target.startswith("/") or target.count("/") != 2))


_SIZE, _TIME, _SWITCH = r"[0-9]{1,9}[kKmM]?", r"[0-9]{1,6}(ms|[smhd])?", "on|off"
# Directives that may stand in the server block, beside those that shipit writes.
SERVER: Mapping[str, Check] = {
    "add_header": _add_header,
    "client_body_timeout": _words(_TIME),
    "client_header_timeout": _words(_TIME),
    "gzip": _words(_SWITCH),
    "gzip_comp_level": _words("[1-9]"),
    "gzip_min_length": _words("[0-9]{1,9}"),
    "gzip_types": _mime,
    "gzip_vary": _words(_SWITCH),
    "keepalive_timeout": _words(_TIME),
    "limit_rate": _words(_SIZE),
    "limit_rate_after": _words(_SIZE),
    "proxy_hide_header": _words("[A-Za-z][A-Za-z0-9-]{0,99}"),
    "send_timeout": _words(_TIME),
}
# Further directives that a location may have.
LOCATION: Mapping[str, Check] = {
    **{name: check for name, check in SERVER.items() if name != "client_header_timeout"},
    "auth_basic": _words("off"),
    "client_max_body_size": _words(_SIZE),
    "expires": _words(rf"-?{_TIME}|max|off|epoch"),
    "proxy_buffering": _words(_SWITCH),
    "proxy_read_timeout": _words(_TIME),
    "proxy_request_buffering": _words(_SWITCH),
    "proxy_send_timeout": _words(_TIME),
    "return": _return,
}
# These may stand more than once in a block.
MANY = frozenset({"add_header", "proxy_hide_header"})
# Directives for which shipit.yml has a key below `proxy:`, for the whole app.
_INSTEAD = {
    "client_max_body_size": "body", "proxy_read_timeout": "timeout", "proxy_send_timeout": "timeout",
    "proxy_buffering": "buffering", "proxy_request_buffering": "upload_buffering", "allow": "allow", "deny": "allow",
    "rewrite": "redirects", "limit_req": "rate", "limit_conn": "connections", "root": "static", "alias": "static",
}  # fmt: skip


@dataclass(frozen=True)
class Snippet(Record):
    """The parsed directives: for each its place (`""` for the server, `/path`, `= /path`), its name and its words. When
    the file is read, it is checked against the same tables."""

    rows: tuple[tuple[str, ...], ...] = field(default=(), metadata=own(lambda value, _: checked(value)))
    format: Format = field(default=FORMAT, metadata=own(format_number))

    def headers(self, place: str = "") -> tuple[tuple[str, str], ...]:
        """The headers that are added to each answer at this place."""
        return tuple((words[0], words[1]) for name, words in self._of(place) if name == "add_header")

    def lines(self, place: str = "") -> list[str]:
        """The other directives at this place, as nginx reads them."""
        return [" ".join((name, *words)) + ";" for name, words in self._of(place) if name != "add_header"]

    def answers(self, place: str) -> bool:
        """Whether nginx answers there by itself (`return`)."""
        return any(name == "return" for name, _ in self._of(place))

    def places(self) -> list[str]:
        """The locations."""
        return [place for place in dict.fromkeys(row[0] for row in self.rows) if place]

    def _of(self, place: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(row[1], row[2:]) for row in self.rows if row[0] == place]

    def __str__(self) -> str:
        """The text as a person would write it."""
        shown = [shown_row(name, words) for name, words in self._of("")]
        for place in self.places():
            shown += [
                f"location {place} {{",
                *(f"    {shown_row(name, words)}" for name, words in self._of(place)),
                "}",
            ]
        return "\n".join(shown)


def shown_row(name: str, words: Sequence[str]) -> str:
    return " ".join([name, *(f'"{word}"' if not word or " " in word or ";" in word else word for word in words)]) + ";"


def of(paths: AppPaths) -> Snippet | None:
    """The app's snippet, or None; raises Corrupt."""
    try:
        return decode(Snippet, paths.snippet.read_bytes(), paths.snippet.name)
    except FileNotFoundError:
        return None


def checked(rows: Any) -> tuple[tuple[str, ...], ...]:
    """Valid rows; raises ValueError or Rejected for others."""
    if type(rows) is not list or len(rows) > MOST:
        raise ValueError("is no list of directives")
    found: list[tuple[str, ...]] = []
    for row in rows:
        if type(row) is not list or len(row) < 2 or not all(type(word) is str for word in row):
            raise ValueError("holds what is no directive")
        check(row[0], row[1], row[2:])
        found.append(tuple(row))
    once = [row[:2] for row in found if row[1] not in MANY]
    if len(once) != len(set(once)):
        raise ValueError("says something twice")
    return tuple(found)


def check(where: str, name: str, words: Sequence[str]) -> None:
    """Raise Rejected unless this is a directive that is allowed at that place."""
    if where:
        place(where)
    known = LOCATION if where else SERVER
    if name not in known:
        instead = _INSTEAD.get(name)
        if name in LOCATION and not where:
            hint = (
                f"Of all of the app, in shipit.yml:  proxy: {{{instead}: …}}"
                if instead
                else "It may stand in a location."
            )
        else:
            hint = f"In shipit.yml:  proxy: {{{instead}: …}}" if instead else "Known are: " + ", ".join(sorted(known))
        raise Rejected(f"{ascii(name)[1:-1][:40]} is not taken {'in a location' if where else 'here'}.", hint=hint)
    if sum(map(len, words)) > LONGEST_WORD or not known[name](words):
        raise Rejected(f"{name} does not have the form that is taken.", hint=f"{name}: see docs/proxy.md")


def place(text: str) -> str:
    """Parse a location's path, with `= ` before it for that path alone; raises Rejected."""
    path = text.removeprefix("= ")
    names.url_path(path)
    if path == "/" and path == text:
        raise Rejected(
            "location / is the whole app.", hint="What is said of the whole app stands outside of a location."
        )
    for own_path in ("/.shipit", "/.well-known/acme-challenge"):
        if f"{path.rstrip('/')}/".startswith(f"{own_path}/"):
            raise Rejected(f"{own_path} is shipit's own.", hint="Another path.")
    return text


def parse(given: str) -> Snippet:
    """Parse what an admin wrote; raises Rejected with the line that is wrong."""
    if len(given) > MAX_SIZE:
        raise Rejected(f"It is larger than {MAX_SIZE // 1024} KiB.")
    rows: list[list[str]] = []
    where, words, line = "", [], 1
    for line, token, quoted in tokens(given):
        if quoted or token not in (";", "{", "}"):
            words.append(token)
            continue
        try:
            if token == ";":
                if not words:
                    raise Rejected("There is no directive before this semicolon.")
                check(where, words[0], words[1:])
                if words[0] not in MANY and [where, words[0]] in [row[:2] for row in rows]:
                    raise Rejected(f"{words[0]} stands twice in one block.")
                rows.append([where, *words])
            elif token == "{":
                if (
                    where
                    or words[:1] != ["location"]
                    or len(words) not in (2, 3)
                    or words[1:-1] not in ([], ["="], ["^~"])
                ):
                    raise Rejected(
                        "The only block is a location of a path.",
                        hint="location /path { … }    or    location = /path { … }",
                    )
                where = place(f"= {words[2]}" if words[1] == "=" else words[-1])
                if where in [row[0] for row in rows]:
                    raise Rejected(f"location {where} stands twice.")
            else:
                if not where or words:
                    raise Rejected("This } ends nothing." if not where else "A semicolon is missing before this }.")
                where = ""
        except Rejected as wrong:
            raise Rejected(f"line {line}: {wrong.message}", hint=wrong.hint) from wrong
        words = []
    if len(rows) > MOST:
        raise Rejected(f"It has more than {MOST} directives.")
    if words or where:
        raise Rejected(f"line {line}: {'a semicolon' if words else 'a }'} is missing at the end.")
    return Snippet(checked(rows))


def tokens(given: str) -> Iterator[tuple[int, str, bool]]:
    """The words of nginx's language with their line, and whether each was quoted. Raises Rejected for a backslash, a
    control character or an open quote."""
    if not given.isascii():
        raise Rejected("It holds letters beyond ASCII.")
    for number, text in enumerate(given.replace("\r\n", "\n").split("\n"), 1):
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise Rejected(
                    f"line {number}: {ascii(text[at:])[1:31]} cannot be read.",
                    hint="No backslash, and quotes in one line.",
                )
            at = found.end()
            if found["word"] is not None:
                yield number, found["word"], False
            elif found["quoted"] is not None:
                yield number, found["quoted"][1:-1], True


_TOKEN = re.compile(
    r"""[ \t]+|\#[ -~\t]*$|(?P<quoted>"[ !#-\[\]-~]*"(?=[ \t;{]|$)|'[ -&(-\[\]-~]*'(?=[ \t;{]|$))|(?P<word>[;{}]|[!$-&(-:<-\[\]-z|~][!#-&(-:<-\[\]-z|~]*)""",
    re.ASCII,
)
