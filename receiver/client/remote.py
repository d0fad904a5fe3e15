"""Which server and which app a command is for: from the options, a file `.shipit`, or the checkout's git remotes."""

from __future__ import annotations

import os

from receiver.client import git
from receiver.errors import NotFound, Rejected

TYPE_CHECKING = False  # instead of importing typing, which takes longer than this whole module
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE = ".shipit"
USER = "shipit"
# If several remotes are receivers and none was chosen, one of these is used.
PREFERRED = ("prod", "production", USER)
_HEX = frozenset("0123456789abcdefABCDEF:.")


class Remote:
    """A receiver as ssh reaches it, and the app there ("" = not known). `name`: of the git remote, or as the user gave
    it."""

    def __init__(self, name: str, host: str, app: str = "", port: int = 0) -> None:
        self.name, self.host, self.app, self.port = name, host, app, port

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def of(self, app: str) -> Remote:
        """The same receiver with this app; unchanged for ""."""
        return Remote(self.name, self.host, app or self.app, self.port)

    @property
    def ssh(self) -> tuple[str, ...]:
        """ssh(1)'s words for it; without a port, ssh's own configuration decides on one."""
        return (*(("-p", str(self.port)) if self.port else ()), "--", self.host)

    @property
    def url(self) -> str:
        """The URL for git push."""
        port = f":{self.port}" if self.port else ""
        return f"ssh://{self.host}{port}/{self.app}"


def parse(name: str, url: str) -> Remote | None:
    """The receiver in a git remote's URL, `ssh://USER@HOST:PORT/APP` or `USER@HOST:APP`; None for other URLs. Without
    regular expressions, as compiling one takes longer than all of this."""
    if url.split() != [url]:
        return None
    is_url = url.startswith("ssh://")
    place, _, path = url[len("ssh://") :].partition("/") if is_url else (url, "", "")
    user, at, rest = place.partition("@")
    if not at or not user or "/" in user or (not is_url and (":" in user or user[0] == "-")):
        user, at, rest = "", "", place
    host, after = _host(rest)
    if host is None:
        return None
    port = after[1:] if is_url else ""
    if is_url:
        path = path.lstrip("/")
        if after and not (after[0] == ":" and 0 < len(port) <= 5 and port.isascii() and port.isdigit()):
            return None
    elif after[:1] != ":" or "://" in url:
        return None
    else:
        path = after[1:].removeprefix("/")
    app = path.removesuffix("/")
    app = app.removesuffix(".git") or app
    if not app or "/" in app or (not is_url and ":" in app):
        return None
    return Remote(name, user + at + host, app, int(port or 0))


def _host(text: str) -> tuple[str | None, str]:
    """The host at the beginning of a text, without brackets (None: there is none), and the rest."""
    if text.startswith("["):
        host, bracket, after = text[1:].partition("]")
        return (host, after) if bracket and host and _HEX.issuperset(host) else (None, "")
    end = min(i for i in (text.find(":"), text.find("/"), len(text)) if i >= 0)
    host = text[:end]
    return (host if host and host[0] not in "-@" else None), text[end:]


def find(directory: str | os.PathLike[str], remote: str = "", app: str = "") -> Remote:
    """The receiver for a command in `directory`. `remote` is a git remote's name or USER@HOST[:APP]; `app` overrides
    the remote's. Raises NotFound or Rejected with what to type."""
    place = os.fspath(directory)
    found = _given(place, remote) if remote else _from_file(place) or _from_git(place)
    return found.of(app)


def _given(directory: str, remote: str) -> Remote:
    urls = remotes(directory)
    found = parse(remote, urls[remote]) if remote in urls else parse(remote, remote)
    if (
        found is None
        and remote not in urls
        and "@" in remote
        and _host(remote) == (remote, "")
        and remote.split() == [remote]
    ):
        found = Remote(remote, remote)
    if found is None:
        known = ", ".join(sorted(urls)) or "none"
        raise NotFound(f"There is no remote {remote!a} that ssh reaches.", hint=f"git knows: {known}")
    return found


def _from_file(directory: str) -> Remote | None:
    """The content of the nearest `.shipit` upwards: lines `server: shipit@example.org` and `app: blog`."""
    for place in _upwards(directory):
        path = os.path.join(place, FILE)
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        found = [line.partition(":") for line in lines if line and not line.startswith("#")]
        said = {key: value.strip() for key, _, value in found}
        whole = all(value.split() == [value] for value in said.values())
        if "server" not in said or not whole or len(said) != len(found) or not {"server", "app"}.issuperset(said):
            raise Rejected(f"{path} is not understood.", hint=f"Two lines: server: {USER}@example.org\napp: blog")
        server = _given(place, said["server"])
        return server.of(said.get("app", ""))
    return None


def _upwards(directory: str) -> Iterator[str]:
    while True:
        yield directory
        above = os.path.dirname(directory)
        if above == directory:
            return
        directory = above


def _from_git(directory: str) -> Remote:
    all_of_them = {name: parse(name, url) for name, url in remotes(directory).items()}
    receivers = {name: found for name, found in all_of_them.items() if found and found.host.startswith(f"{USER}@")}
    if len(receivers) == 1:
        return next(iter(receivers.values()))
    for name in PREFERRED:
        if name in receivers or (not receivers and all_of_them.get(name)):
            chosen = all_of_them[name]
            assert chosen is not None
            return chosen
    if receivers:
        raise Rejected(
            f"There are several receivers among the git remotes: {', '.join(sorted(receivers))}.",
            hint=f"Say which: shipit --remote {min(receivers)} …",
        )
    raise NotFound(
        "No server is known here: no git remote is a receiver, and there is no file .shipit.",
        hint=f"Add it: git remote add prod {USER}@HOST:APP\nor say it: shipit --remote {USER}@HOST:APP …",
    )


def remotes(directory: str) -> Mapping[str, str]:
    """The URLs of the checkout's remotes by name; none outside a checkout, or if git is missing."""
    said = git.asked(directory, "config", "--get-regexp", r"^remote\..*\.url$")
    pairs = (line.partition(" ") for line in said.splitlines())
    return {key.removeprefix("remote.").removesuffix(".url"): url for key, _, url in reversed(list(pairs))}
