"""As whom registries are asked: for one app, or for all. Only `shipit` reads it; no password is ever an argument."""

from __future__ import annotations

import json
from pathlib import Path

from receiver.errors import HostFault, Rejected
from receiver.paths import AppPaths, Layout
from receiver.sources.pull.wish import Place
from receiver.sources.registry import Login
from receiver.system import disk

NAME = "registries.json"


class Logins:
    """Those of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of_app(cls, paths: AppPaths) -> Logins:
        place = Place(paths)
        place.make()
        return cls(place.dir / NAME)

    @classmethod
    def of_all(cls, layout: Layout) -> Logins:
        return cls(layout.home / NAME)

    def all(self) -> dict[str, Login]:
        """By registry."""
        try:
            found = json.loads(self._path.read_bytes())
            return {str(host): Login(str(user), str(password)) for host, (user, password) in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise HostFault(f"{self._path} is damaged.", hint="Remove it, and log in again.") from error

    def set(self, host: str, login: Login | None) -> None:
        """Ask `host` so from now on; None: as nobody."""
        if login is not None:
            # What was no UTF-8 has come as half a letter, and could not be sent.
            if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in login.user + login.password):
                raise Rejected("A user's name and a password are one line of UTF-8.")
            if ":" in login.user:
                raise Rejected("A user's name has no colon.")
        with disk.locked(self._path.with_suffix(".lock"), wait=True):
            known = self.all()
            if login is None:
                known.pop(host, None)
            else:
                known[host] = login
            disk.write_atomically(self._path, json.dumps(known, indent=1).encode() + b"\n", 0o600)


def login_for(layout: Layout, paths: AppPaths, host: str) -> Login | None:
    """The app's own, else everybody's."""
    return Logins.of_app(paths).all().get(host) or Logins.of_all(layout).all().get(host)
