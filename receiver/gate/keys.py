"""Named ssh keys: who may log in and what each may do. `keys.json` is the truth, `authorized_keys` is derived.

A key line is built from typed values only: sshd passes `command=` to a shell (sshd(8), AUTHORIZED_KEYS FILE FORMAT),
and a line break in a key would start a second line without any forced command (threat rows 3-5).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from receiver import names
from receiver.caller import Caller, Role
from receiver.errors import Busy, Denied, Failure, HostFault, NotFound, Rejected
from receiver.gate.ask import COMMAND
from receiver.names import AppName, KeyName
from receiver.paths import Layout

BEGIN = "# shipit: the lines down to 'shipit: end' are written by `shipit ssh-keys:add`; change them with it"
END = "# shipit: end"


@dataclass(frozen=True)
class Key:
    """One key. `apps` is None for all apps; `added` is seconds since the epoch, `blob` the base64 of RFC 4253 6.6."""

    name: KeyName
    role: Role
    apps: tuple[AppName, ...] | None
    type: str
    blob: str
    fingerprint: str
    added: float


# The local administrator, who types `shipit …` on the server itself.
LOCAL_ADMIN = Caller("root", "", Role.ADMIN)


class Keyring:
    """The keys of this server. Changes take a lock and are atomic; each of both files is complete at any moment."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def all(self) -> list[Key]:
        """Every key, by name; none if the file does not exist yet. Raises HostFault if it is damaged."""
        try:
            raw = self._layout.keys.read_bytes()
        except FileNotFoundError:
            return []
        return sorted(_decode(raw, self._layout.keys), key=lambda key: key.name)

    def caller(self, name: str, fingerprint: str) -> Caller:
        """The caller that a forced command names; raises Denied if no key has this name and fingerprint (any more)."""
        for key in self.all():
            if (key.name, key.fingerprint) == (name, fingerprint):
                return Caller(key.name, key.fingerprint, key.role, key.apps)
        raise Denied("This key is not known to shipit any more.", hint="An admin can add it: shipit ssh-keys:add NAME")

    def add(
        self, name: KeyName, text: str, role: Role, apps: Sequence[AppName] | None, now: Callable[[], float]
    ) -> Key:
        """Add one public key line. Raises Rejected for a bad key and for a name or key that exists already."""
        if role is Role.ADMIN and apps is not None:
            raise Rejected(
                "An admin is for all apps: it may add keys.", hint="Leave out --app, or make it --role deploy."
            )
        kind, blob, fingerprint = parse_public_key(text)
        key = Key(name, role, None if apps is None else tuple(apps), kind, blob, fingerprint, now())
        with self._changing() as keys:
            for other in keys:
                if other.name == name:
                    raise Rejected(
                        f"There is a key named {name} already.", hint=f"Remove it first: shipit ssh-keys:remove {name}"
                    )
                if other.fingerprint == fingerprint:
                    raise Rejected(f"This key is known already, as {other.name}.")
            keys.append(key)
        return key

    def remove(self, wanted: str) -> Key:
        """Remove the key with this name or `SHA256:` fingerprint; raises NotFound."""
        with self._changing() as keys:
            for key in keys:
                if wanted in (key.name, key.fingerprint):
                    keys.remove(key)
                    return key
        raise NotFound(f"There is no key {wanted!a}.", hint="List them: shipit ssh-keys:list")

    def is_written(self) -> bool:
        """Whether `authorized_keys` holds the line of every key, and sshd will read it (StrictModes)."""
        path = self._layout.authorized_keys
        text = _read(path)
        return text == merged(text, self.all()) and all(
            place.stat().st_uid == os.geteuid() and not place.stat().st_mode & 0o022 for place in (path, path.parent)
        )

    def write_lines(self) -> None:
        """Derive `authorized_keys` again from `keys.json`."""
        with self._changing():
            pass

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, locked; both files are written when the block ends without an exception."""
        from receiver.system import disk

        path = self._layout.authorized_keys
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with disk.locked(self._layout.keys.with_name("keys.lock"), wait=True):
            keys = self.all()
            yield keys
            before = _read(path)
            lines = merged(before, keys)
            _write(self._layout, self._layout.keys, _encode(keys))
            # An editor does not take our lock: do not overwrite what it wrote meanwhile.
            if _read(path) != before:
                raise Busy(f"Somebody else changed {path} just now.", hint="Do it again.")
            _write(self._layout, path, lines.encode())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _write(layout: Layout, path: Path, data: bytes) -> None:
    from receiver.system import disk

    # Root may be the writer (install.sh); sshd wants these files to belong to the user (StrictModes), at every moment.
    home = layout.home.stat()
    owner = (home.st_uid, home.st_gid) if os.geteuid() == 0 else None
    disk.write_atomically(path, data, 0o600, owner=owner)
    if owner:
        for made in (path.parent, layout.keys.with_name("keys.lock")):
            os.chown(made, *owner, follow_symlinks=False)


def key_line(key: Key) -> str:
    """The line of sshd(8)'s authorized_keys. Every part comes from a closed alphabet, so nothing needs quoting."""
    return f'restrict,pty,command="{COMMAND} {key.name} {key.fingerprint}" {key.type} {key.blob} {key.name}'


def merged(before: str, keys: Sequence[Key]) -> str:
    """`authorized_keys` with our part between the markers replaced and everything outside them kept."""
    lines = before.splitlines()
    begins = [i for i, line in enumerate(lines) if line == BEGIN]
    ends = [i for i, line in enumerate(lines) if line == END]
    if (len(begins), len(ends)) not in ((0, 0), (1, 1)) or (begins and begins[0] > ends[0]):
        raise HostFault(
            "The markers of shipit in authorized_keys are damaged; the file was left as it is.",
            hint="Delete every line that begins with '# shipit:' or 'restrict,pty,command=', then do it again.",
        )
    ours = [BEGIN, *(key_line(key) for key in keys), END]
    kept = [*lines[: begins[0]], *ours, *lines[ends[0] + 1 :]] if begins else [*lines, *ours]
    return "\n".join(kept) + "\n"


def parse_public_key(text: str) -> tuple[str, str, str]:
    """(type, base64, fingerprint) of one public key line; options, several lines and odd types are refused."""
    from receiver.gate.pubkey import parse

    return parse(text)


def _encode(keys: Sequence[Key]) -> bytes:
    body = [
        {
            "name": k.name, "role": k.role.value, "apps": None if k.apps is None else list(k.apps), "type": k.type,
            "key": k.blob, "fingerprint": k.fingerprint, "added": k.added,
        }
        for k in sorted(keys, key=lambda key: key.name)
    ]  # fmt: skip
    return (json.dumps({"keys": body}, indent=1) + "\n").encode()


def _decode(raw: bytes, path: Path) -> list[Key]:
    try:
        return [_key(item) for item in json.loads(raw)["keys"]]
    except (Failure, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostFault(
            f"{path} is damaged: {ascii(str(error))[1:-1]}",
            holds="Nothing was changed; apps serve on.",
            hint="Restore it from a backup.",
        ) from error


def _key(item: dict[str, Any]) -> Key:
    apps = item["apps"]
    return Key(
        name=names.key_name(item["name"]),
        role=Role(item["role"]),
        apps=None if apps is None else tuple(names.app_name(app) for app in apps),
        type=str(item["type"]),
        blob=str(item["key"]),
        fingerprint=str(item["fingerprint"]),
        added=float(item["added"]),
    )
