"""Root's part of HTTPS: has certificates requested by a user of their own, checks the results, and installs them.

certbot(1) never runs as root and never touches what nginx reads. It writes a certificate and its key to a pipe. What
comes out of the pipe is limited in size, checked (system/x509.py) and written into a directory of root's. The old
certificate serves until nginx has accepted the new one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from receiver import settings
from receiver.engines.all import Engines
from receiver.engines.base import Job, job_name
from receiver.errors import Failure, HostFault, Rejected
from receiver.ledger.ledger import Ledger, apps
from receiver.names import AppName, Domain, aws_keys
from receiver.paths import ACME, ACME_USER, PYTHON, SHIPIT_USER, AppPaths, Layout
from receiver.proxy import certificates, nginx
from receiver.proxy.certificates import Certificates, Dns, Installed, Origin
from receiver.proxy.vhost import domains
from receiver.records import Record, encode
from receiver.settings import Settings
from receiver.system import disk, x509

# Seconds: certbot waits for a slow authority.
PATIENCE = 300
NO_CERTBOT = 69  # exit code of the job
SITE = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class Outcome:
    """The result of asking for one name's certificate."""

    name: Domain
    done: bool
    why: str = ""


def certify(layout: Layout, engines: Engines, app: AppName, output: int, *, now: bool = False) -> list[Outcome]:
    """Ask for every certificate that the app's names need, one by one, install them and have nginx use them.

    `now`: also for those that are not due, or failed a moment ago. Messages go to `output`. Raises HostFault if nginx
    does not accept one; then the old one serves on.
    """
    known, paths = settings.load(layout.settings), layout.app(app)
    ledger, store = Ledger(paths), Certificates(paths)
    state = ledger.state()
    names = domains(app, state, ledger.current(), known)
    wanted = certificates.wanting(store, state, names, known, time.time())
    if now and certificates.asks(state, known):
        dns = store.dns(known) is not None
        wanted = [name for name in names if certificates.can_ask(name, dns=dns) and not _is_own(store, name)]
    asked = wanted if now else certificates.patient(store, wanted, time.time())
    done = []
    if asked:
        before = {name: store.acme(name) for name in asked}
        # The authority will ask for a file under the app's names: nginx has to serve it.
        nginx.apply(layout, known, app)
        prepare(paths)
        # certbot cannot run twice at once.
        with disk.locked(layout.roots / "acme.lock", wait=True):
            for number, name in enumerate(asked, 1):
                # Who had the lock before may have asked for the same name, as the job after a push and an administrator do.
                # Authorities give few certificates for one name a week.
                new = store.acme(name)
                if new is not None and new != before[name] and new.covers(name):
                    done.append(Outcome(name, True))
                elif now or certificates.patient(store, [name], time.time()):
                    done.append(_certify_one(layout, engines, known, store, name, number, output))
                else:
                    done.append(Outcome(name, False, store.last_try(name).why))
    done += [Outcome(name, False, store.last_try(name).why) for name in wanted if name not in asked]
    _clean(store, names)
    return done


def certify_all(layout: Layout, engines: Engines) -> int:
    """The timer's work: ask for every app's certificates that are due. Failures go to the journal, and doctor shows
    them."""
    code = 0
    for app in apps(layout):
        try:
            for one in certify(layout, engines, app, 2):
                print(f"{app}: {one.name}: {'has a new certificate' if one.done else one.why}", flush=True)
                code = code if one.done else 1
        except Exception as error:  # noqa: BLE001 - printed and counted; the next app is looked at all the same
            for line in error.lines() if isinstance(error, Failure) else [repr(error)]:
                print(f"{app}: {line}", flush=True)
            code = 1
    return code


def add(layout: Layout, app: AppName, source: int) -> Installed:
    """Install an admin's own certificate; raises Rejected, with nothing changed, unless it is valid and is for one of
    the app's names."""
    known, paths = settings.load(layout.settings), layout.app(app)
    ledger, store = Ledger(paths), Certificates(paths)
    pair = x509.read(_read_all(source), user=SHIPIT_USER)
    new = installed(pair, Origin.OWN)
    names = domains(app, ledger.state(), ledger.current(), known)
    if not any(new.covers(name) for name in names):
        raise Rejected(
            f"The certificate is for {', '.join(new.names[:5])}; {app} answers at {', '.join(names[:5])}.",
            holds="Nothing was changed.", hint=f"Give the app the name first: shipit domains:add {app} {new.names[0]}",
        )  # fmt: skip
    prepare(paths)
    _install(layout, known, store, store.own_record, new, pair.pem)
    return new


def remove(layout: Layout, app: AppName) -> bool:
    """Remove an admin's own certificate; False if there is none."""
    known, store = settings.load(layout.settings), Certificates(layout.app(app))
    if not disk.remove_file(store.own_record):
        return False
    nginx.apply(layout, known, app)
    _clean(store, None)
    return True


def prove_by_dns(layout: Layout, app: AppName, plugin: str, wait: int, source: int) -> None:
    """From now on prove the app's names by DNS, with certbot's `plugin` and the credentials read from `source`; with
    the plugin "" by HTTP again, and the credentials are removed. Root keeps them. Raises Rejected if they hold more
    than keys and values."""
    paths = layout.app(app)
    store = Certificates(paths)
    if not plugin:
        disk.remove_file(store.dns_record)
        disk.remove_file(store.dns_credentials)
        return
    credentials = _read_all(source)
    if not credentials.strip() or len(credentials) > x509.MAX_SIZE:
        raise Rejected("There are no credentials, or more than anybody has.", holds="Nothing was changed.")
    if plugin == "route53":
        aws_keys(credentials.decode(errors="replace"))
    prepare(paths)
    disk.write_atomically(store.dns_credentials, credentials, 0o600)
    _write(store.dns_record, Dns(plugin, wait))


def prepare(paths: AppPaths) -> None:
    """Make the directories of the app's certificates."""
    with disk.opened_dir(paths.dir) as top:
        disk.make_dir(top, paths.tls.name, 0o755, os.geteuid(), os.getegid())
    with disk.opened_dir(paths.tls) as tls:
        for name, mode in (("acme", 0o755), ("tries", 0o755), ("keys", 0o700), ("secrets", 0o700)):
            disk.make_dir(tls, name, mode, os.geteuid(), os.getegid())


def installed(pair: x509.Pair, origin: Origin) -> Installed:
    return Installed(
        origin=origin, names=pair.names, not_before=pair.not_before, not_after=pair.not_after, issuer=pair.issuer,
        fingerprint=pair.fingerprint,
    )  # fmt: skip


def _certify_one(
    layout: Layout, engines: Engines, known: Settings, store: Certificates, name: Domain, number: int, output: int
) -> Outcome:
    why, limited, until = _ask(layout, engines, known, store, name, number, output)
    if not why:
        disk.remove_file(store.try_record(name))
        return Outcome(name, True)
    failed = store.last_try(name).again(time.time(), why, limited=limited, until=until)
    _write(store.try_record(name), failed)
    return Outcome(name, False, why)


def _ask(
    layout: Layout, engines: Engines, known: Settings, store: Certificates, name: Domain, number: int, output: int
) -> tuple[str, bool, int]:
    """Ask for and install one certificate. Returns the reason if that failed, whether the authority has limited our
    requests, and until when, if it says."""
    answer = _job(layout, engines, known, store, name, number, output)
    if why := answer.get("error"):
        until = answer.get("until")
        return _line(why), answer.get("limited") is True, until if isinstance(until, int) and 0 <= until < 2**40 else 0
    try:
        pair = x509.read(str(answer.get("pem", "")).encode(), user=ACME_USER)
        new = installed(pair, Origin.ACME)
        if not new.covers(name):
            raise Rejected(f"The certificate that came is for {', '.join(new.names[:5])}.")
        _install(layout, known, store, store.record(name), new, pair.pem)
    except Failure as failure:
        return " ".join([failure.message, *failure.details[:2]]), False, 0
    return "", False, 0


def _job(
    layout: Layout, engines: Engines, known: Settings, store: Certificates, name: Domain, number: int, output: int
) -> dict[str, Any]:
    """Run certbot as its own user; returns its answer: `pem`, or `error`, `limited` and `until`."""
    old, dns = store.acme(name), store.dns(known)
    wait = dns.wait if dns else 0
    wish = {
        "name": name, "directory": known.acme_directory, "email": known.acme_email, "ca": known.acme_ca_bundle,
        "eab": _external_account(layout), "webroot": str(layout.challenges), "have": old.fingerprint if old else "",
        "dns": _dns(layout, store, dns), "environment": {key: known.build_environment[key] for key in SITE if key in known.build_environment},
    }  # fmt: skip
    job = Job(
        name=job_name("certificate", store.paths.name, number), app=store.paths.name, user=ACME_USER, group=ACME_USER,
        argv=(str(PYTHON), "-IS", str(ACME)), cwd=layout.acme, writable=(layout.acme, layout.challenges),
        hidden=(layout.apps, layout.home), timeout=PATIENCE + wait,
    )  # fmt: skip
    stdin = os.memfd_create("wish", os.MFD_CLOEXEC)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(_read_all(reading)), daemon=True)
    try:
        os.write(stdin, json.dumps(wish).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        reader.start()
        try:
            code = engines.run_job(job, stdin, writing, output)
        finally:
            os.close(writing)
        reader.join(10)
    finally:
        os.close(stdin)
        os.close(reading)
    try:
        answer = json.loads(found[0]) if found else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        return {"error": "certbot did not end in time." if code == 124 else f"The program that asks ended with {code}."}
    return answer


def _read_all(source: int) -> bytes:
    """Read to the end, or a little more than is allowed."""
    found = b""
    while len(found) <= x509.MAX_SIZE and (part := os.read(source, 65536)):
        found += part
    return found


def _dns(layout: Layout, store: Certificates, dns: Dns | None) -> dict[str, Any] | None:
    """The plugin with its credentials; raises HostFault if the server's credentials are missing."""
    if dns is None:
        return None
    own = store.dns_record.exists()
    path = store.dns_credentials if own else layout.acme_dns
    try:
        return {"plugin": dns.plugin, "wait": dns.wait, "credentials": path.read_text()}
    except (OSError, ValueError) as error:
        again = f"shipit tls:enable {store.paths.name} --dns {dns.plugin}" if own else "See acme_dns in docs/tls.md"
        raise HostFault(f"The credentials in {path} cannot be read.", hint=again) from error


def _external_account(layout: Layout) -> list[str]:
    try:
        words = layout.acme_account.read_text().split()
    except FileNotFoundError:
        return []
    if len(words) != 2:
        raise HostFault(f"{layout.acme_account} does not hold a key id and an HMAC key.", hint="See docs/tls.md")
    return words


def _install(layout: Layout, known: Settings, store: Certificates, record: Any, new: Installed, pem: bytes) -> None:
    """Put the files in place and have nginx use them; if nginx refuses, restore the old state."""
    before = record.read_bytes() if record.exists() else None
    disk.write_atomically(store.file(new), pem, 0o600)
    _write(record, new)
    try:
        nginx.apply(layout, known, store.paths.name)
    except HostFault as failure:
        if failure.holds.startswith("The configuration of"):
            # The files are right; nginx is not running, and reads them when it starts.
            raise
        if before is None:
            disk.remove_file(record)
        else:
            disk.write_atomically(record, before, 0o644)
        with suppress(Failure):
            nginx.apply(layout, known, store.paths.name)
        raise
    _clean(store, None)


def _clean(store: Certificates, names: Sequence[Domain] | None) -> None:
    """Remove what is no longer used: records of names that are not the app's any more (`names` None: keep all records),
    and keys without a record."""
    if not store.paths.tls.is_dir():
        return
    if names is not None:
        for directory in ("acme", "tries"):
            for path in (store.paths.tls / directory).glob("*.json"):
                if path.name.removesuffix(".json") not in names:
                    disk.remove_file(path)
    used = {store.file(one) for one in (store.own(), *store.all_acme().values()) if one is not None}
    for path in (store.paths.tls / "keys").iterdir():
        if path not in used:
            disk.remove_file(path)


def _write(path: Any, record: Record) -> None:
    disk.write_atomically(path, encode(record), 0o644)


def _line(text: object) -> str:
    """Another program's message as one printable line."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:600]


def _is_own(store: Certificates, name: Domain) -> bool:
    serving = store.serving(name, time.time())
    return serving is not None and serving.origin is Origin.OWN
