"""The ways to send a message out of the machine. Each `send` returns the result in a few words, or raises Failure."""

from __future__ import annotations

import ipaddress
import os
import shlex
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from receiver.errors import Failure, HostFault, Rejected
from receiver.ledger.ledger import Ledger
from receiver.ops.notify.message import Message, headers, mail
from receiver.root.client import Agent
from receiver.root.oneoff import run_unwatched
from receiver.system.ends import Ends, why
from receiver.system.run import find, run
from receiver.system.transfer import addresses, answered

# Seconds for one request; the pauses before a second and a third one. All of it ends long before story/verdict.py's LIMIT.
REQUEST, PAUSES = 10.0, (1.0, 5.0)
PROGRAM = 30.0  # seconds for a program
SENDMAIL = Path("/usr/sbin/sendmail")
SMTP = ("127.0.0.1", 25)
# Address ranges that lead to other networks through this machine's (RFC 6052, RFC 3056).
_TUNNELS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")))


class Way(Protocol):
    @property
    def name(self) -> str: ...

    def send(self, message: Message) -> str: ...


@dataclass(frozen=True)
class Webhook:
    """A POST. `free`: an administrator chose the address, so any is allowed. Otherwise it must be public, or its host
    in `allowed`: an app's developers must not reach what only this machine can reach."""

    url: str
    secret: str = ""
    free: bool = False
    allowed: Collection[str] = ()
    name = "webhook"

    def send(self, message: Message) -> str:
        for pause in (*PAUSES, None):
            try:
                status = self._post(message)
                trouble = f"it answered {status}"
                again = status in (408, 425, 429) or status >= 500
            except (OSError, HTTPException) as error:
                trouble, again = why(error), True
            except ValueError as error:
                # DNS can have no such name.
                trouble, again = why(error), False
            else:
                if 200 <= status < 300:
                    return f"it answered {status}"
            if not again:
                break
            if pause is not None:
                time.sleep(pause)
        raise HostFault(f"The webhook did not take it: {trouble}.")

    def _post(self, message: Message) -> int:
        """The status of one request. Follows no redirect, and reads nothing else of the answer."""
        parts, ends = urlsplit(self.url), Ends(REQUEST, REQUEST)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # Use the address that was checked, and do not resolve the name a second time.
        address = address_of(host, port, self.free or host in self.allowed, ends)
        named = {"Host": parts.netloc.rpartition("@")[2], **headers(message, self.secret)}
        connection, answer = answered(parts, ends, named, method="POST", body=message.body, address=address)
        connection.close()
        return answer.status


def web_address(url: str) -> str:
    """A URL that a message may be sent to; raises Rejected. The message does not repeat it, as it may hold a secret."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or len(url) > 2000 or not all("!" <= char <= "~" for char in url):
        raise Rejected("The address of the webhook is no http:// or https:// address.")
    return url


def address_of(host: str, port: int, free: bool, ends: Ends) -> tuple[str, int]:
    """The first allowed address of a host; raises OSError, or Rejected if it has only private ones."""
    for address in addresses(host, port, ends):
        if free or is_public(address[0]):
            return address
    raise Rejected(
        f"{host} has no public address, and an app's webhook is not sent to others.",
        hint="An administrator allows it, in /etc/shipit/shipit.yml:  notify: {allow: HOST}",
    )


def is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(str(address.ipv4_mapped))
        if any(address in network for network in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast


@dataclass(frozen=True)
class Command:
    """A command of the app, run as by `shipit run`: with the app's user, sandbox and config vars, in its live release.
    It gets the message on standard input, as JSON. `line` is for bash; `{text}` in it stands for the line for
    people."""

    line: str
    ledger: Ledger
    name: str = "command"

    def send(self, message: Message) -> str:
        live = self.ledger.current()
        if live is None or not live.slug:
            raise Rejected("No release is live that it could run in.")
        given = os.memfd_create("message", os.MFD_CLOEXEC)
        try:
            os.write(given, message.body)
            os.lseek(given, 0, os.SEEK_SET)
            line = self.line.replace("{text}", shlex.quote(message.text))
            paths = self.ledger.paths
            with Agent.connect(paths.layout.agent_socket) as agent:
                code, lines = run_unwatched(agent, paths, live, line, stdin=given, seconds=PROGRAM, what="It")
        finally:
            os.close(given)
        if code:
            raise HostFault(f"It ended with exit code {code}.", details=lines[-5:])
        return "it ended with 0"


@dataclass(frozen=True)
class Program:
    """A program that an administrator chose, with the message on standard input."""

    argv: tuple[str, ...]
    name: str = "command"

    def send(self, message: Message) -> str:
        run(self.argv, input=message.body, timeout=PROGRAM)
        return "it ended with 0"


@dataclass(frozen=True)
class Email:
    """By the machine's mail server: on 127.0.0.1, else by sendmail(8). In this order, because no program here may gain
    a group, and Postfix's sendmail needs that."""

    to: tuple[str, ...]
    name = "email"

    def send(self, message: Message) -> str:
        sender = f"shipit@{socket.getfqdn()}"
        letter = mail(message, self.to, sender)
        import smtplib

        try:
            with smtplib.SMTP(*SMTP, timeout=REQUEST) as server:
                server.sendmail(sender, self.to, letter)
            return "the mail server took it"
        except (OSError, smtplib.SMTPException) as error:
            if not SENDMAIL.exists():
                raise HostFault(
                    f"No mail server takes it, and {SENDMAIL} is not there.", details=[str(error)]
                ) from error
        run([SENDMAIL, "-i", "-f", sender, "--", *self.to], input=letter, timeout=PROGRAM)
        return "sendmail took it"


@dataclass(frozen=True)
class Apprise:
    """The program apprise, with a configuration file that an administrator chose."""

    config: Path
    name = "apprise"

    def send(self, message: Message) -> str:
        program = find("apprise")
        if program is None:
            raise HostFault("apprise is not installed.", hint="apt install apprise")
        run([program, f"--config={self.config}", f"--title={message.app}", f"--body={message.text}"], timeout=PROGRAM)
        return "apprise took it"


def in_app(app_variable: str, ledger: Ledger) -> Command:
    """apprise for an app: in the app's sandbox, because its addresses may be in this machine's networks."""
    return Command(f'exec apprise --title=shipit --body={{text}} "${app_variable}"', ledger, "apprise")


def send_all(ways: Collection[Way], message: Message) -> list[tuple[str, str, Failure | None]]:
    """Send by all ways at the same time; returns each one's name, its result, and its error, if there was one."""
    results: list[tuple[str, str, Failure | None]] = []

    def send(way: Way) -> None:
        try:
            results.append((way.name, way.send(message), None))
        except Failure as failure:
            results.append((way.name, "", failure))
        except Exception as error:  # noqa: BLE001 - returned as the error; the other ways go on
            results.append((way.name, "", HostFault(f"It failed ({type(error).__name__}).")))

    threads = [threading.Thread(target=send, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results, key=lambda result: result[0])
