"""sshd's part: a Match block for the user `shipit`, which sshd checks before it is used, and the first keys."""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from receiver import names
from receiver.caller import Role
from receiver.errors import HostFault, Rejected, as_root
from receiver.gate.ask import COMMAND
from receiver.gate.keys import Key, Keyring
from receiver.gate.pubkey import parse
from receiver.paths import SHIPIT_USER, Layout
from receiver.setup import accounts
from receiver.setup.report import Step
from receiver.system import disk
from receiver.system.render import render
from receiver.system.run import run
from receiver.system.sshd import SSHD, amiss, effective

INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf"
_TYPES = re.compile(r"(?:^|\s)((?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+[A-Za-z0-9+/=]+.*)$")


def config_path(layout: Layout) -> Path:
    return layout.root / "etc/ssh/sshd_config.d/shipit.conf"


def configure(layout: Layout, step: Step) -> bool:
    """Put the Match block in place; True if it changed. If sshd refuses the new one, the old one is restored."""
    main = layout.root / "etc/ssh/sshd_config"
    if not re.search(r"^\s*Include\s+(\S*/)?sshd_config\.d/\*\.conf", main.read_text(), re.MULTILINE | re.IGNORECASE):
        raise HostFault(
            f"{main} does not read the files in sshd_config.d, so shipit's part would have no effect.",
            holds="sshd was not changed.",
            hint=f"Put this line at its top and run ./install.sh again: {INCLUDE}",
        )
    (layout.root / "run/sshd").mkdir(mode=0o755, exist_ok=True)
    path = config_path(layout)
    path.parent.mkdir(exist_ok=True)
    text = render("sshd/shipit.conf.j2", user=SHIPIT_USER, authorized_keys=layout.authorized_keys).encode()
    old = path.read_bytes() if path.exists() else None
    if old != text:
        disk.write_atomically(path, text, 0o644)
    tested = run([SSHD, "-t"], check=False)
    wrong = amiss(effective(), layout.authorized_keys)
    if not tested.code and not wrong and old == text:
        return False
    if tested.code or wrong:
        if old is None:
            disk.remove_file(path)
        else:
            disk.write_atomically(path, old, 0o644)
        raise HostFault(
            "sshd does not take shipit's configuration.",
            holds="The old one is in force.",
            hint=f"{as_root('sshd -t')}; something before the Include in /etc/ssh/sshd_config may win over it",
            details=[*tested.err.splitlines()[-5:], *(f"for {SHIPIT_USER} it has: {line}" for line in wrong)],
        )
    step.did(str(path))
    return True


def port() -> int:
    """The first port that sshd is configured to listen on."""
    return int(effective().get("port", ["22"])[0])


def locked_out() -> str:
    """Why sshd would refuse `shipit` although its key is known; "" if nothing in its settings does."""
    found = effective()
    allowed = found.get("allowusers", [])
    if allowed and SHIPIT_USER not in allowed:
        return f"sshd lets in only AllowUsers {' '.join(allowed)}: add {SHIPIT_USER} there."
    groups = found.get("allowgroups", [])
    if groups and SHIPIT_USER not in groups:
        return f"sshd lets in only AllowGroups {' '.join(groups)}: add {SHIPIT_USER} there."
    if SHIPIT_USER in found.get("denyusers", []):
        return f"sshd shuts out DenyUsers {SHIPIT_USER}."
    return ""


def read_keys(files: Sequence[Path]) -> list[str]:
    """The public keys in files named by --key, one a line. Raises Rejected before anything is changed."""
    lines = []
    for file in files:
        try:
            found = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
        except (OSError, UnicodeDecodeError) as error:
            raise Rejected(f"--key {file} cannot be read: {error}") from error
        if not found:
            raise Rejected(f"--key {file} holds no key.")
        for line in found:
            parse(line)
        lines += found
    return lines


def any_key(layout: Layout) -> bool:
    """Whether there is any key already. Then no key is added unasked: one may have been removed on purpose."""
    return bool(Keyring(layout).all())


def accounts_keys() -> list[str]:
    """The keys that root and the caller of sudo log in with. Keys with options are left out: they may do less."""
    lines = []
    for user in dict.fromkeys(["root", os.environ.get("SUDO_USER", "root")]):
        try:
            text = (Path(pwd.getpwnam(user).pw_dir) / ".ssh/authorized_keys").read_text()
        except (OSError, KeyError, UnicodeDecodeError):
            continue
        lines += [line for line in text.splitlines() if _TYPES.match(line) and _is_key(line)]
    return list(dict.fromkeys(lines))


def _is_key(line: str) -> bool:
    try:
        parse(line)
    except Rejected:
        return False
    return True


def add_keys(layout: Layout, lines: Sequence[str], step: Step) -> list[Key]:
    """Add these keys as admins; a known key keeps its role. Returns the keys."""
    ring = Keyring(layout)
    taken = []
    for line in lines:
        known = {key.fingerprint: key for key in ring.all()}
        fingerprint = parse(line)[2]
        if fingerprint not in known:
            name = next(name for name in key_names(line) if name not in {key.name for key in known.values()})
            known[fingerprint] = ring.add(names.key_name(name), line, Role.ADMIN, None, time.time)
            step.did(name)
        taken.append(known[fingerprint])
    return taken


def open_gate(layout: Layout, step: Step) -> None:
    """Let the current version serve logins: write the lines of all keys, and make it the account's shell."""
    Keyring(layout).write_lines()
    accounts.set_shell(COMMAND, step)


def lines(layout: Layout) -> bytes:
    """The content of authorized_keys."""
    return layout.authorized_keys.read_bytes() if layout.authorized_keys.exists() else b""


def put_lines(layout: Layout, text: bytes) -> None:
    """Restore authorized_keys."""
    if text and text != lines(layout):
        with disk.locked(layout.keys.with_name("keys.lock"), wait=True):
            home = layout.home.stat()
            disk.write_atomically(layout.authorized_keys, text, 0o600, owner=(home.st_uid, home.st_gid))


def key_names(line: str) -> Iterator[str]:
    """Names for a key, best first: from its comment, in letters that a name may have, then with a number."""
    comment = " ".join(line.split()[2:]).lower()
    base = re.sub(r"[^a-z0-9_]+", "-", comment).strip("-_")[:28]
    if not base or not base[0].isalpha():
        base = f"admin-{base}".rstrip("-")[:28]
    yield base
    for number in range(2, 1000):
        yield f"{base}-{number}"


def remove(layout: Layout, step: Step) -> bool:
    """Remove shipit from sshd; True if there was something. Sessions stay."""
    gone = disk.remove_file(config_path(layout))
    if gone:
        step.did(f"removed {config_path(layout)}")
    return gone
