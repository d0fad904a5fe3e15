"""Environment variables that Django's settings read and shipit can supply; read as text and never run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from receiver import names
from receiver.errors import Rejected
from receiver.names import ConfigKey

# A setting, from its name to the end of its value.
_SET = rb"^[ \t]*%s\b[^=\n]{0,80}=(?!=)([^\n]*(?:\n[ \t)\]}][^\n]*){0,6})"
_HOSTS = re.compile(_SET % b"ALLOWED_HOSTS", re.MULTILINE)
_HOSTS_NAME = re.compile(rb"""[(\[]\s*["']((?:[A-Z][A-Z0-9]*_)*(?:ALLOWED_HOSTS?|HOSTS))["']""")
# If the settings have a default for the variable, they work without it. Such a key is not replaced, although others may
# know it: what was signed or encrypted with it could not be read any more.
_SECRET = re.compile(
    rb"""^[ \t]*SECRET_KEY\b[^=\n]{0,80}=[ \t]*(?:str\()?[\w.]{0,60}[(\[]\s*["']([A-Z][A-Z0-9_]*)["']\s*"""
    rb"""(?:,\s*(?:default\s*=\s*)?(?:None|""|'')\s*)?(?:,\s*cast\s*=\s*str\s*)?[)\]]\)?(?:\s*or\s+(?:None|""|''))?[ \t]*(?:\#.*)?$""",
    re.MULTILINE,
)
# If the value is parsed as JSON or code, `*` is not valid.
_PARSED = re.compile(rb"json|literal_eval|\beval\b|yaml")
_FROM_ENVIRONMENT = re.compile(rb"environ|getenv|\benv\b|\bconfig\(|get_env|decouple")


def hosts(texts: Iterable[bytes]) -> tuple[ConfigKey, ...]:
    """The variables that ALLOWED_HOSTS is read from."""
    return _keys(
        name
        for text in texts
        for found in _HOSTS.finditer(text)
        if _FROM_ENVIRONMENT.search(found[1]) and not _PARSED.search(found[1])
        for name in _HOSTS_NAME.findall(found[1])
    )


def secrets(texts: Iterable[bytes]) -> tuple[ConfigKey, ...]:
    """The variable that SECRET_KEY is read from, if it has no default."""
    return _keys(
        found[1]
        for text in texts
        for found in _SECRET.finditer(text)
        # django-environ's defaults: Env(SECRET_KEY=(str, "…")).
        if _FROM_ENVIRONMENT.search(found[0]) and not re.search(rb"\b%s\s*=\s*\(" % found[1], text)
    )


def _keys(found: Iterable[bytes]) -> tuple[ConfigKey, ...]:
    return tuple(dict.fromkeys(_allowed(found)))


def _allowed(found: Iterable[bytes]) -> Iterator[ConfigKey]:
    for name in found:
        try:
            yield names.config_key(name.decode())
        except Rejected:
            continue
