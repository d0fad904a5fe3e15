"""How an app gets access to what it follows: a deploy key, passwords, trusted host keys, allowed signers.

Each app has its own, so that no app can fetch with another's rights; no secret is ever an argument of a program.
"""

from __future__ import annotations

import re
import socket
from urllib.parse import quote, urlsplit

from receiver.errors import HostFault, NotFound, Rejected
from receiver.sources.pull.wish import Place
from receiver.system import disk
from receiver.system.run import run

# https://host/path, ssh://user@host/path, user@host:path; no password, blank, control character or leading dash.
_HTTPS = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/[^\s\x00-\x20\x7f@]{1,1000}", re.ASCII)
_SSH = re.compile(
    r"ssh://(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/[^\s\x00-\x20\x7f]{1,1000}"
    r"|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s\x00-\x20\x7f-][^\s\x00-\x20\x7f]{0,1000}",
    re.ASCII,
)
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,5})?", re.ASCII)
_KNOWN = re.compile(r"[^\s#@|][^\s]* (?:ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*(?: .*)?", re.ASCII)
_SIGNER = re.compile(r"[^\s#\"]+ (?:(?:ssh|ecdsa|sk)-[a-z0-9@.-]+) [A-Za-z0-9+/]+=*(?: .*)?", re.ASCII)
SCAN = 10  # seconds


def checked_url(url: str) -> str:
    """The URL, if shipit fetches from such a URL; raises Rejected with what to write instead."""
    if _HTTPS.fullmatch(url) or _SSH.fullmatch(url):
        return url
    if "@" in url and url.startswith("https://"):
        raise Rejected(
            "A URL holds no user and no password here: it is shown, and this is not.",
            hint="Give them apart: shipit git:auth APP HOST USER - < PASSWORD",
        )
    raise Rejected(
        f"shipit does not fetch from {url[:100]!a}.", hint="https and ssh only: https://HOST/PATH or git@HOST:PATH"
    )


def host_of(text: str) -> str:
    """`HOST` or `HOST:PORT`; raises Rejected."""
    if not _HOST.fullmatch(text):
        raise Rejected(f"{text[:60]!a} is no host.", hint="HOST or HOST:PORT, as in the URL")
    return text


def make_key(place: Place, app: str, *, again: bool) -> str:
    """Make the app's deploy key; returns its public half. Raises Rejected if there is one, unless `again`."""
    if place.key.exists() and not again:
        raise Rejected(
            f"{app} has a deploy key already.",
            hint=f"See it: shipit git:public-key {app}    Another: shipit git:generate-deploy-key {app} --force",
        )
    with place.changing():
        new = place.dir / "key.new"
        for left in (new, new.with_suffix(".new.pub")):
            disk.remove_file(left)
        comment = f"{app}@{socket.gethostname()}"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", new])
        new.rename(place.key)
        new.with_suffix(".new.pub").rename(place.public_key)
        disk.fsync_dir(place.dir)
    return public_key(place, app)


def public_key(place: Place, app: str) -> str:
    try:
        return place.public_key.read_text().strip()
    except FileNotFoundError:
        raise NotFound(f"{app} has no deploy key.", hint=f"Make one: shipit git:generate-deploy-key {app}") from None


def set_password(place: Place, host: str, user: str, password: str) -> None:
    """Set the password for https at this host; an empty `user` removes it."""
    for value in (user, password):
        if any(c < " " or c == "\x7f" for c in value):
            raise Rejected("A user's name or a password is one line.")
    with place.changing():
        kept = [line for line in place.lines(place.credentials) if urlsplit(line).netloc.rpartition("@")[2] != host]
        if user:
            kept.append(f"https://{quote(user, safe='')}:{quote(password, safe='')}@{host}")
        place.write(place.credentials, "".join(f"{line}\n" for line in kept))


def scan(host: str) -> list[str]:
    """The host keys that a machine shows now, as lines of known_hosts. An attacker in between could show others."""
    name, _, port = host.partition(":")
    said = run(["ssh-keyscan", "-T", str(SCAN), *(["-p", port] if port else []), "--", name], check=False, timeout=60)
    found = [line for line in said.out.splitlines() if _KNOWN.fullmatch(line)]
    if not found:
        raise HostFault(f"{host} shows no host key.", details=said.err.splitlines()[-3:])
    return found


def allow_host(place: Place, lines: list[str]) -> list[str]:
    """Trust these host keys, instead of the earlier ones of the same hosts; returns their fingerprints."""
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    for line in lines:
        if not _KNOWN.fullmatch(line):
            raise Rejected(
                f"This is no line of a known_hosts file: {line[:60]!a}", hint="HOST TYPE KEY, as ssh-keyscan has it"
            )
    hosts = {line.split(" ", 1)[0] for line in lines}
    text = "".join(f"{line}\n" for line in lines)
    shown = run(["ssh-keygen", "-l", "-f", "-"], input=text.encode())
    with place.changing():
        kept = [line for line in place.lines(place.known_hosts) if line.split(" ", 1)[0] not in hosts]
        place.write(place.known_hosts, "".join(f"{line}\n" for line in kept) + text)
    return shown.out.splitlines()


def allow_signers(place: Place, lines: list[str]) -> int:
    """Set the allowed signers, instead of the earlier ones; returns how many."""
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    for line in lines:
        if not _SIGNER.fullmatch(line):
            raise Rejected(
                f"This names no signer: {line[:60]!a}",
                hint="WHO TYPE KEY on each line, as ann@example.org ssh-ed25519 AAAA…",
            )
    place.write(place.signers, "".join(f"{line}\n" for line in lines))
    return len(lines)
