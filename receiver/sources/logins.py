"""Logins for registries: an app's own, and the server's, which an app can use if an administrator has allowed it. Only
`shipit` can read the files; no password is ever an argument.

The pusher chooses the registry (`FROM`, `--image`). So no app can use a login of the server's until that is allowed.
"""

from __future__ import annotations

import json
from pathlib import Path

from receiver.errors import HostFault, Rejected
from receiver.names import AppName
from receiver.paths import AppPaths, Layout
from receiver.sources.pull.wish import Place
from receiver.sources.registry import Login
from receiver.system import disk

NAME = "registries.json"
ALLOWED = "registries.allowed"


class Logins:
    """The logins in one file."""

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
        """The logins by registry."""
        try:
            found = json.loads(self._path.read_bytes())
            return {str(host): Login(str(user), str(password)) for host, (user, password) in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise HostFault(f"{self._path} is damaged.", hint="Remove it, and log in again.") from error

    def set(self, host: str, login: Login | None) -> None:
        """Use this login for `host` from now on; None: no login."""
        if login is not None:
            # Bytes that are not UTF-8 arrive as lone surrogates, and could not be sent.
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


class Allowed:
    """The registries for which an app, or every app, may use the server's login. The app's list is removed with the
    app: a new app of the same name has none."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ALLOWED

    @classmethod
    def of_app(cls, paths: AppPaths) -> Allowed:
        return cls(Place(paths).dir)

    @classmethod
    def of_all(cls, layout: Layout) -> Allowed:
        return cls(layout.home)

    def hosts(self) -> frozenset[str]:
        try:
            return frozenset(self._path.read_text().split())
        except FileNotFoundError:
            return frozenset()

    def set(self, host: str, *, may: bool) -> None:
        if may:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
        elif not self._path.exists():
            return
        with disk.locked(self._path.with_suffix(".lock"), wait=True):
            known = self.hosts()
            if may != (host in known):
                text = "".join(f"{one}\n" for one in sorted(known ^ {host}))
                disk.write_atomically(self._path, text.encode(), 0o600)


def logins_for(layout: Layout, paths: AppPaths, *, admin: bool = False) -> dict[str, Login]:
    """The app's own logins, and those of the server's that it may use; `admin`: all of the server's, since an
    administrator names the image."""
    servers = Logins.of_all(layout).all()
    if not admin:
        allowed = Allowed.of_app(paths).hosts() | Allowed.of_all(layout).hosts()
        servers = {host: login for host, login in servers.items() if host in allowed}
    return {**servers, **Logins.of_app(paths).all()}


def withheld(layout: Layout, paths: AppPaths) -> frozenset[str]:
    """The registries for which the server has a login that the app may not use, and the app has none of its own."""
    return frozenset(Logins.of_all(layout).all()) - frozenset(logins_for(layout, paths))


def how_to_use(app: AppName, host: str) -> str:
    """What to type so that an app may use the server's login."""
    return f"The server has a login of its own. An administrator lets {app} use it: shipit registry:allow {app} {host}"
