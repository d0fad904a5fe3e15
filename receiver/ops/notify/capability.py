"""`notify:` of shipit.yml: who gets which messages. chosen.py finds the ways, and is loaded only for a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receiver import names
from receiver.errors import Rejected
from receiver.manifest.section import Said
from receiver.ops.base import Event
from receiver.ops.notify.section import KEY, TOLD, Notify, address
from receiver.records import Record

_VARIABLE = {"type": "string", "minLength": 1, "maxLength": 2000}


class NotifyCapability:
    key = KEY
    schema: Mapping[str, Any] = {
        "description": "Who is told how a release ended, and of a process that ends again and again.",
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {"^x-": True},
        "properties": {
            "on": {
                "description": "Of what. Default: all of them.",
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": {"enum": [what.value for what in TOLD]},
            },
            "webhook": {"description": "The config var that holds the address of a webhook.", **_VARIABLE},
            "secret": {"description": "The config var that holds the secret which signs it.", **_VARIABLE},
            "command": {
                "description": "A command, run as `shipit run` does, with JSON on standard input.",
                "$ref": "#/$defs/command",
            },
            "email": {"type": "array", "maxItems": 5, "items": {"type": "string"}},
            "apprise": {"description": "The config var that holds an address as apprise writes it.", **_VARIABLE},
        },
    }
    kept: type[Record] = Notify
    hears = frozenset(TOLD)

    def read(self, said: Said) -> Notify | None:
        data = said.data
        for key in ("webhook", "secret", "apprise"):
            if key in data:
                try:
                    names.config_key(data[key])
                except Rejected:
                    said.wrong(
                        f"notify.{key} is the name of a config var, which holds it: it is no secret in a repository.",
                        key,
                        hint=f"In shipit.yml:  notify: {{{key}: NOTIFY_{key.upper()}}}\n"
                        f"On the server: shipit config:set APP NOTIFY_{key.upper()} - < FILE",
                    )
        for index, given in enumerate(data.get("email", ())):
            try:
                address(given)
            except Rejected as error:
                said.wrong(error.message, "email", index)
        if "secret" in data and "webhook" not in data:
            said.wrong("notify.secret signs what a webhook gets, and there is none.", "secret")
        return Notify(
            on=tuple(data.get("on", [what.value for what in TOLD])),
            webhook=data.get("webhook", ""), secret=data.get("secret", ""), command=data.get("command", ""),
            email=tuple(data.get("email", ())), apprise=data.get("apprise", ""),
        )  # fmt: skip

    def on(self, event: Event) -> None:
        # Imported here, because it loads network modules, and every push loads this module.
        from receiver.ops.notify import chosen

        process = f"{event.process}.{event.index}" if event.process else ""
        chosen.tell(event.what.value, event.ledger, event.release, process, event.reason)
