"""Checks what sshd does with a login of `shipit`. The only allowed way in is a key that shipit wrote."""

from __future__ import annotations

from pathlib import Path

from receiver.paths import SHIPIT_USER
from receiver.system.run import run

SSHD = "/usr/sbin/sshd"
# sshd_config(5), as `sshd -T` prints it. All other ways to log in are off, and nothing overrides a key's line.
WANTED = {
    "authenticationmethods": "publickey",
    "authorizedkeyscommand": "none",
    "authorizedprincipalscommand": "none",
    "authorizedprincipalsfile": "none",
    "chrootdirectory": "none",
    "disableforwarding": "yes",
    "forcecommand": "none",
    "gssapiauthentication": "no",
    "hostbasedauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "kerberosauthentication": "no",
    "passwordauthentication": "no",
    "permittunnel": "no",
    "permituserrc": "no",
    "trustedusercakeys": "none",
}


def effective() -> dict[str, list[str]]:
    """The values that sshd uses for `shipit`, by option in lower case; nothing if sshd refuses its configuration."""
    asked = run([SSHD, "-T", "-C", f"user={SHIPIT_USER},host=localhost,addr=127.0.0.1"], check=False)
    found: dict[str, list[str]] = {}
    for line in asked.out.splitlines():
        option, *values = line.split()
        found.setdefault(option.lower(), []).extend(values)
    return found


def amiss(found: dict[str, list[str]], authorized_keys: Path) -> list[str]:
    """The settings that are wrong, as `option value`. An option that this sshd was built without counts as off."""
    wanted = {**WANTED, "authorizedkeysfile": str(authorized_keys)}
    wrong = [
        f"{option} {' '.join(found[option])}"
        for option, value in wanted.items()
        if found.get(option, [value]) != [value]
    ]
    return wrong if found else ["nothing: it refuses its configuration"]
