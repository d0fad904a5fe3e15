"""Arguments that many commands share; names.py parses them, so that a bad name gives the same clear error
everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from receiver import names
from receiver.caller import Role
from receiver.ledger.ledger import Ledger, open_app
from receiver.model import AppState
from receiver.names import AppName

F = TypeVar("F", bound=Callable[..., Any])
DROP_WEB = "Also when nothing would take requests any more."


class Name(click.ParamType[Any]):
    """A click type for a parser of names.py; its Rejected reaches the user unchanged."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._parse(value) if isinstance(value, str) else value


class AppParam(Name):
    """An app's name, refused unless the caller's key is for that app; the role was checked with the command."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        app = super().convert(value, param, ctx)
        if ctx is not None and (caller := getattr(ctx.obj, "caller", None)) is not None:
            caller.require(Role.VIEW, app)
        return app


APP = AppParam("app", names.app_name)
KEY = Name("key", names.config_key)
DOMAIN = Name("domain", names.domain)
PROCESS = Name("process", names.type_name)
RELEASE = Name("release", names.release_number)

app_argument = click.argument("app", type=APP)
json_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print it."
)


def ledger_of(ctx: Any, app: AppName) -> Ledger:
    """The ledger of an existing app; raises NotFound."""
    return open_app(ctx.layout, app)


def change(ledger: Ledger, new: Callable[[AppState], AppState]) -> None:
    """Change a setting of an app that does not depend on its releases; raises Busy if the app is locked."""
    # Imported here, because most commands change nothing.
    from receiver.ledger.queue import refuse_locked

    refuse_locked(ledger)
    ledger.change_state(new)
