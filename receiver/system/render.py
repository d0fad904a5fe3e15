"""The one Jinja environment. Templates are the administrator's in /etc/shipit/templates, else the package's.

Values are data: a template never comes from a value, an undefined name is an error, and no value may hold a control
character, so none can add a line to what root's programs read (threat rows 51, 57).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from receiver.errors import HostFault, Rejected
from receiver.paths import Layout, share

if TYPE_CHECKING:
    import jinja2


Render = Callable[..., str]
ADMIN = Layout().etc / "templates"
INCLUDES = re.compile(r'{%-?\s*(?:include|extends|import|from)\s+"([^"]+)"')


def render(name: str, /, **values: Any) -> str:
    """Fill the template `name` (`systemd/process.service.j2`).

    Raises HostFault when the template is at fault (an administrator may have written it), Rejected for a value that
    no configuration file may hold.
    """
    import jinja2

    try:
        return environment().get_template(name).render(values)
    except jinja2.TemplateError as error:
        where = f" line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise HostFault(f"The template {name}{where} cannot be filled: {error}") from error


def sources(name: str) -> list[str]:
    """The text of the template and of what it includes: equal sources and values give equal texts."""
    for folder in (ADMIN, share("templates")):
        with suppress(FileNotFoundError):
            text = (folder / name).read_text()
            return [text, *(part for other in INCLUDES.findall(text) for part in sources(other))]
    return []


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The environment; importing Jinja and making it takes about 60 ms, so only where text is rendered."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([ADMIN, share("templates")]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=_one_line,
        auto_reload=False,
    )


def _one_line(value: Any) -> Any:
    if isinstance(value, str) and not value.isprintable():
        raise Rejected(f"{value[:60]!a} holds a control character and is not put into a configuration file.")
    return value
