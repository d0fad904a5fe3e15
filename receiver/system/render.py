"""The only Jinja environment. A template comes from the administrator's /etc/shipit/templates, else from the package.

Values are data: no template comes from a value, an undefined name is an error, and no value may have a control
character, so that none can add a line to a file that root's programs read (threat rows 51, 57).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from receiver.errors import HostFault, Rejected
from receiver.paths import Layout, share

if TYPE_CHECKING:
    import jinja2


ADMIN = Layout().etc / "templates"


def render(name: str, /, **values: Any) -> str:
    """Fill the template `name` (`systemd/process.service.j2`).

    Raises HostFault if the template is wrong (an administrator may have written it), Rejected for a value that may not
    go into a configuration file.
    """
    import jinja2

    try:
        return environment().get_template(name).render(values)
    except jinja2.TemplateError as error:
        where = f" line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise HostFault(f"The template {name}{where} cannot be filled: {error}") from error


def prepared(*names: str) -> Iterator[None]:
    """Compile these templates, one for each step of the iterator, so that nobody has to wait for that later."""
    import jinja2

    for name in names:
        yield
        # A template that an administrator broke is reported when it is used.
        with suppress(jinja2.TemplateError):
            environment().get_template(name)


def environment() -> jinja2.Environment:
    """The environment; importing Jinja and making it takes about 25 ms, so only where text is rendered."""
    written = tuple((str(path), path.stat().st_mtime_ns) for path in sorted(ADMIN.rglob("*"))) if ADMIN.is_dir() else ()
    return _environment(written)


@lru_cache(maxsize=1)
def _environment(written: tuple[tuple[str, int], ...]) -> jinja2.Environment:
    """`written`: names and times of the administrator's templates; when these change, a new environment is made."""
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
