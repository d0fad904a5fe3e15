"""The message about an event: one value, and its text forms. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from receiver.model import Release
from receiver.ops.base import What

MAX_LINE = 300  # characters of a reason or a title: they come from the pusher


@dataclass(frozen=True)
class Message:
    """`event` is an event's name, or `test`. `id` is new for each message, `time` is in seconds since the epoch: by
    both, a receiver that checks the signature can recognise a message that an attacker has sent again."""

    id: str
    time: int
    event: str
    app: str
    release: str
    change: str
    by: str
    url: str
    commit: str = ""
    title: str = ""
    reason: str = ""
    process: str = ""

    @property
    def text(self) -> str:
        """One line for people."""
        about = f"{self.app} {self.release}"
        if self.event == What.CRASHED.value:
            return f"{about}: {self.process} ends again and again"
        if self.event == What.RUN_FAILED.value:
            return f"{about}: {self.process} failed: {self.reason}"
        if self.event == What.UNREACHED.value:
            return f"{about}: what it follows is not reached: {self.reason}"
        if self.event in (What.CERTIFICATE.value, What.STORAGE.value):
            return f"{about}: {self.reason}"
        if self.event == "test":
            return f"{about}: a test, asked for by {self.by}"
        told = f"{about} {'is live' if self.event == What.LIVE.value else self.event}"
        title = f" {self.title}" if self.title else ""
        return f"{told} ({self.change} by {self.by}){title}{f': {self.reason}' if self.reason else ''}"

    @property
    def body(self) -> bytes:
        """As JSON, for programs. Members are added in later versions, none is renamed."""
        return json.dumps({"text": self.text, **asdict(self)}).encode()


def message(
    what: str, release: Release, url: str, *, id: str, time: float, process: str = "", how: str = "", by: str = ""
) -> Message:
    """The message about this release; `by`: who did it, if not the release's author."""
    origin = release.origin
    return Message(
        id=id, time=int(time), event=what, app=release.app, release=release.name, change=release.change.value,
        by=_line(by or release.by), url=url, commit=origin.id if origin else "",
        title=_line(origin.title if origin else release.message), reason=_line(how or release.reason), process=process,
    )  # fmt: skip


def headers(message: Message, secret: str) -> Mapping[str, str]:
    """The headers of a webhook's request. With a secret it is signed as GitHub does: HMAC-SHA256 of the body."""
    plain = {"Content-Type": "application/json", "User-Agent": "shipit", "X-Shipit-Event": message.event,
             "X-Shipit-Delivery": message.id}  # fmt: skip
    if not secret:
        return plain
    return {
        **plain,
        "X-Shipit-Signature-256": "sha256=" + hmac.digest(secret.encode(), message.body, hashlib.sha256).hex(),
    }


def mail(message: Message, to: tuple[str, ...], sender: str) -> bytes:
    """As an e-mail. A title with a line break cannot add a header: `_line` made one line of it."""
    from email.message import EmailMessage

    letter = EmailMessage()
    letter["From"], letter["To"] = sender, ", ".join(to)
    letter["Subject"] = message.text[:200]
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content("\n".join(f"{name}: {value}" for name, value in asdict(message).items() if value) + "\n")
    return letter.as_bytes()


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_LINE]
