"""Checks that a webhook knows its secret, in the ways of GitHub, Gitea, Forgejo and GitLab.

Nothing else in the hook is read: it only says that it is time to look.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from receiver import names
from receiver.errors import Rejected
from receiver.names import AppName

PREFIX = "/.shipit/hook/"
MAX_BODY = 4 * 2**20
_SIGNATURES = ("x-hub-signature-256", "x-gitea-signature", "x-forgejo-signature", "x-gogs-signature")
_TOKEN = "x-gitlab-token"


class Secret(NamedTuple):
    """`path` makes the address impossible to guess; `key` signs the requests."""

    path: str
    key: str

    def address(self, app: AppName) -> str:
        return f"{PREFIX}{app}/{self.path}"


def secret_of(file: Path) -> Secret | None:
    try:
        path, key = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return Secret(path, key)


def new_secret() -> Secret:
    return Secret(secrets.token_hex(16), secrets.token_hex(32))


def app_of(address: str) -> tuple[AppName, str] | None:
    """The app and the secret part of an address; None for any other."""
    app, _, path = address.removeprefix(PREFIX).partition("/")
    if not address.startswith(PREFIX) or not path:
        return None
    try:
        return names.app_name(app), path
    except Rejected:
        return None


def is_signed(secret: Secret, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the sender knows the secret; `headers` by lower-case names."""
    wanted = hmac.new(secret.key.encode(), body, "sha256").hexdigest()
    for name in _SIGNATURES:
        if value := headers.get(name):
            return hmac.compare_digest(value.removeprefix("sha256=").encode(), wanted.encode())
    return hmac.compare_digest(headers.get(_TOKEN, "").encode(), secret.key.encode())
