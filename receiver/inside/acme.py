"""Asks a certificate authority for one name's certificate (RFC 8555, by HTTP or DNS). Runs as a user only for this.

Standard input is the wish, JSON on one line, from root. Standard output is the answer: {"pem": key and chain}, or
{"error": why, "limited": bool, "until": when to ask again, or 0}. The system's certbot(1) does the work. Before that we
check that the name leads to this server: authorities count failures.
"""

from __future__ import annotations

import calendar
import hashlib
import http.client
import json
import os
import re
import secrets
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from receiver.errors import HostFault
from receiver.system.run import CLEAN, find, run

PORT = 80  # the only port that an authority connects to (RFC 8555, 8.3)
TIMEOUT = 5.0
# If certbot has got a certificate within so many seconds, root gets that one again; no new one is asked for.
FRESH = 3600
HOME = Path.home()


class Refused(Exception):
    """There is no certificate. `limited`: the authority refuses further requests for a while; `until` when, in seconds
    since the epoch, 0 if it does not say."""

    def __init__(self, why: str, *, limited: bool = False, until: int = 0) -> None:
        super().__init__(why)
        self.limited, self.until = limited, until


def main(_: list[str]) -> None:
    wish = json.loads(sys.stdin.readline())
    answer: dict[str, str | bool | int]
    try:
        answer = {"pem": certificate(wish)}
    except Refused as why:
        answer = {"error": str(why), "limited": why.limited, "until": why.until}
    except (HostFault, OSError, ValueError) as why:
        answer = {"error": str(why) or type(why).__name__}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    raise SystemExit(1 if "error" in answer else 0)


def certificate(wish: dict[str, Any]) -> str:
    """The key and the chain; raises Refused."""
    certbot = find("certbot")
    if certbot is None:
        raise Refused("certbot is not installed on the server. As root: apt-get install certbot")
    name, dns = wish["name"], wish["dns"]
    live = HOME / "config/live" / kept_as(name)
    if brought_lately(live / "fullchain.pem", wish["have"]):
        return text(live)
    if not dns:
        leads_here(name, Path(wish["webroot"]))
    say(f"Asking {wish['directory'].split('/')[2]} for a certificate for {name}")
    # The only file with the credentials is root's: certbot reads them from memory that vanishes with it.
    secret = os.memfd_create("credentials", 0) if dns else -1
    try:
        if dns:
            os.fchmod(secret, 0o600)
            os.write(secret, dns["credentials"].encode())
        done = run(
            words(str(certbot), wish, secret), env=environment(wish, secret), check=False,
            timeout=270 + (dns["wait"] if dns else 0), pass_fds=(secret,) if dns else (),
        )  # fmt: skip
    finally:
        if dns:
            os.close(secret)
    if done.code:
        said, (problem, detail) = done.out + done.err, answered()
        limited = problem == "rateLimited" or "rateLimited" in said
        raise Refused(why(said, problem, wish, detail), limited=limited, until=until(said + detail) if limited else 0)
    return text(live)


def kept_as(name: str) -> str:
    """certbot's name for a certificate. No domain of an app begins with `_`."""
    return f"_.{name[2:]}" if name.startswith("*.") else name


def proof(wish: dict[str, Any], secret: int) -> list[str]:
    """certbot's arguments for the way in which the name is proved."""
    dns = wish["dns"]
    if not dns:
        return ["--webroot", "--webroot-path", wish["webroot"]]
    plugin = f"dns-{dns['plugin']}"
    # Amazon's library reads its credentials from the environment.
    given = [] if dns["plugin"] == "route53" else [f"--{plugin}-credentials", f"/proc/self/fd/{secret}"]
    waits = [f"--{plugin}-propagation-seconds", str(dns["wait"])] if dns["wait"] else []
    return ["--authenticator", plugin, *given, *waits]


def words(certbot: str, wish: dict[str, Any], secret: int) -> list[str]:
    """certbot's command line. The account's key goes into a file, since everybody can read a command line."""
    config = HOME / "shipit.ini"
    lines = [f"{name} = {wish[name]}" for name in ("email",) if wish[name]] or [
        "register-unsafely-without-email = true"
    ]
    if wish["eab"]:
        lines += [f"eab-kid = {wish['eab'][0]}", f"eab-hmac-key = {wish['eab'][1]}"]
    new = config.with_suffix(".new")
    new.touch(0o600)
    new.write_text("\n".join(lines) + "\n")
    new.rename(config)
    return [
        certbot, "certonly", "--non-interactive", "--agree-tos", "--config", str(config), *proof(wish, secret),
        "--domain", wish["name"], "--cert-name", kept_as(wish["name"]),
        "--server", wish["directory"], "--key-type", "ecdsa", "--force-renewal", "--no-directory-hooks",
        "--max-log-backups", "10", "--config-dir", str(HOME / "config"), "--work-dir", str(HOME / "work"),
        "--logs-dir", str(HOME / "logs"),
    ]  # fmt: skip


def environment(wish: dict[str, Any], secret: int) -> dict[str, str]:
    ca = {"REQUESTS_CA_BUNDLE": wish["ca"]} if wish["ca"] else {}
    aws = {"AWS_SHARED_CREDENTIALS_FILE": f"/proc/self/fd/{secret}"} if wish["dns"] else {}
    return {**CLEAN, "HOME": str(HOME), **wish["environment"], **ca, **aws}


def brought_lately(chain: Path, have: str) -> bool:
    """Whether certbot has a new certificate that root lacks: it was killed, or nginx refused it, a moment ago."""
    try:
        if time.time() - chain.stat().st_mtime > FRESH:
            return False
        first = re.search(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", chain.read_text(), re.DOTALL)
    except OSError:
        return False
    return first is not None and hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0])).hexdigest() != have


def text(live: Path) -> str:
    return (live / "privkey.pem").read_text() + (live / "fullchain.pem").read_text()


def leads_here(name: str, webroot: Path) -> None:
    """Raise Refused if the name has no address, or if another server answers there. It is no error if this machine
    cannot reach its own address: behind many routers it cannot."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, PORT, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise Refused(
            f"{name} has no address ({error.strerror or error}): add an A or AAAA record that leads to this server."
        ) from None
    addresses = ", ".join(sorted(map(str, found))[:4])
    token = secrets.token_urlsafe(24)
    path = webroot / ".well-known/acme-challenge" / f"shipit-{token}"
    path.write_text(token)
    path.chmod(0o644)
    try:
        for address in sorted(map(str, found)):
            told = ask(name, address, f"/.well-known/acme-challenge/{path.name}")
            if told is not None and told != token:
                raise Refused(f"{name} leads to {addresses}, where another server answers. Its DNS must lead here.")
            if told is None:
                say(f"{name} does not answer at {address} from here; the authority may see more")
    finally:
        path.unlink()


def ask(name: str, address: str, path: str, hops: int = 3) -> str | None:
    """The answer at this address; None if there is none. Follows redirects, as an authority does."""
    connection = http.client.HTTPConnection(address, PORT, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers={"Host": name, "User-Agent": "shipit", "Connection": "close"})
        answer = connection.getresponse()
        sent = re.fullmatch(r"http://([A-Za-z0-9.-]+)(/[!-~]*)", answer.getheader("Location") or "")
        if sent and hops and answer.status in (301, 302, 303, 307, 308):
            return ask(sent[1], sent[1], sent[2], hops - 1)
        body = answer.read(1024).decode(errors="replace").strip()
        return body if answer.status == 200 else f"status {answer.status}"
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def answered() -> tuple[str, str]:
    """The last error of the authority (RFC 8555, 6.7): its type and its text, from what certbot has logged in this run;
    "" if there is none. For some types certbot fails itself and prints only that."""
    try:
        log = (HOME / "logs/letsencrypt.log").read_text(errors="replace")
    except OSError:
        return "", ""
    mine = log.rpartition("certbot version: ")[2]
    kinds = re.findall(r"\burn:ietf:params:acme:error:([A-Za-z]+)", mine)
    if not kinds:
        return "", ""
    details = re.findall(rf'\{{[^{{}}]*"urn:ietf:params:acme:error:{kinds[-1]}"[^{{}}]*\}}', mine)
    try:
        detail = json.loads(details[-1]).get("detail", "") if details else ""
    except ValueError:
        detail = ""
    return str(kinds[-1]), " ".join(str(detail).split())


def why(said: str, problem: str, wish: dict[str, Any], detail: str = "") -> str:
    """The authority's reason, from what certbot prints."""
    if wish["dns"] and ("unrecognized arguments: --dns" in said or "does not appear to be installed" in said):
        plugin = wish["dns"]["plugin"]
        return (
            f"certbot's plugin dns-{plugin} is not installed on the server. "
            f"As root: apt-get install python3-certbot-dns-{plugin}"
        )
    if problem == "externalAccountRequired" or "requires external account binding" in said:
        return "The authority wants an external account: its key id and HMAC key in /etc/shipit/acme-eab (docs/tls.md)."
    if problem == "rejectedIdentifier":
        authority = wish["directory"].split("/")[2]
        return f"{authority} gives no certificates for this name, whoever asks; another name, or certs:add."
    details = re.findall(r"^\s*(?:Detail|Type):\s*(.+)$", said, re.MULTILINE)
    if details:
        return " - ".join(dict.fromkeys(reversed(details)))
    # certbot repeats a request whose nonce was refused, so that is never the reason.
    if detail and problem != "badNonce":
        return f"{wish['directory'].split('/')[2]}: {detail}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    useful = [
        line for line in lines
        if not line.startswith(("Saving debug log", "Ask for help", "An unexpected error", "See the logfile", "Account"))
        and "Requesting a certificate" not in line and "re-run Certbot" not in line
    ]  # fmt: skip
    return " ".join(useful[-2:]) or "certbot failed."


def until(said: str) -> int:
    """The time in Let's Encrypt's text (`retry after 2026-01-31 12:00:00 UTC`), in seconds since the epoch; else 0."""
    found = re.search(r"retry after (\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d) ?(?:UTC|Z)", " ".join(said.split()))
    try:
        return calendar.timegm(time.strptime(" ".join(found.groups()), "%Y-%m-%d %H:%M:%S")) if found else 0
    except ValueError:
        return 0


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
