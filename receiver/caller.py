"""Who asks for something, and what a key may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from receiver.errors import Denied
from receiver.names import AppName


class Role(str, Enum):
    """What a key may do. Each role may do what the ones before it may."""

    VIEW = "view"
    DEPLOY = "deploy"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Caller:
    """The user who asks, as the gate found out; every entry point gets one and passes it on.

    `require` is the one place that allows or denies access to an app. `touched` collects the apps that it was asked
    about, for the audit line.
    """

    name: str
    fingerprint: str
    role: Role
    apps: tuple[AppName, ...] | None = None
    touched: list[AppName] = field(default_factory=list, compare=False, repr=False)

    def sees(self, app: AppName) -> bool:
        """Whether the key is for this app at all."""
        return self.apps is None or app in self.apps

    def require(self, needed: Role, app: AppName | None = None) -> None:
        """Raise Denied unless the key's role covers `needed` and, when an app is named, the key is for it."""
        if app is not None:
            self.touched.append(app)
            if not self.sees(app):
                raise Denied(
                    f"The key {self.name} is not for the app {app}.",
                    hint=f"It is for: {', '.join(self.apps or ()) or 'none'}. An admin can add the key anew.",
                )
        if not self.role.covers(needed):
            raise Denied(f"The key {self.name} has the role {self.role.value}; this needs {needed.value}.")
