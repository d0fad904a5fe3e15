"""Where a release came from, as an in-toto Statement with SLSA's provenance (https://slsa.dev/spec/v1.0/provenance).

All of it comes from the ledger and the repository: the same release gives the same statement, byte for byte. The server
signs it with a key of its own, which is made with the first signature.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from receiver.errors import HostFault
from receiver.model import Origin, Release
from receiver.paths import SHIPIT_USER, Layout
from receiver.runtimes.base import Part
from receiver.sources.export import Export
from receiver.story.bill import purl, when
from receiver.system import disk
from receiver.system.run import run

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:shipit:release:v1"
# The namespace of a signature (ssh-keygen(1), -n): a signature of something else is not valid for a statement.
NAMESPACE = "shipit-provenance"


def statement(release: Release, artifact: Export | None, parts: Iterable[Part], host: str) -> dict[str, Any]:
    """The statement of a release. `artifact` is what `releases:export` gives, if that is kept; `host` the server's name."""
    origin = release.origin
    subject = [{"name": artifact.name, "digest": {"sha256": artifact.digest}}] if artifact else []
    if origin and origin.commit:
        subject.append({"name": f"{release.app} {release.name}", "digest": {"gitCommit": origin.id}})
    source = [_source(origin, release, host)] if origin else []
    by = {"name": release.by, **({"key": release.key} if release.key else {})}
    external = {"app": release.app, "release": release.name, "change": release.change.value, "requestedBy": by}
    if origin:
        external["source"] = {
            name: value for name in ("kind", "id", "ref", "title", "author") if (value := getattr(origin, name))
        }
    internal = {"runtime": release.runtime, "buildConfig": list(release.build_config), "fresh": release.fresh}
    built = release.slug if release.slug != release.number else 0
    return {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": external,
                "internalParameters": {**internal, **({"builtAs": f"v{built}"} if built else {})},
                "resolvedDependencies": [*source, *({"name": part.name, "uri": purl(part)} for part in parts)],
            },
            "runDetails": {
                "builder": {"id": f"ssh://{SHIPIT_USER}@{host}"},
                "metadata": {
                    "invocationId": f"ssh://{SHIPIT_USER}@{host}/{release.app}/{release.name}",
                    "startedOn": when(release.created),
                    **({"finishedOn": when(release.finished)} if release.finished else {}),
                },
                # A digest of every name, kind, mode and size in the slug (not of the contents).
                "byproducts": [{"name": "slug", "digest": {"shipitTree": release.digest}}] if release.digest else [],
            },
        },
    }


def _source(origin: Origin, release: Release, host: str) -> dict[str, Any]:
    """A commit of the app's repository; for files that came another way, the commit that was made of them."""
    uri = f"git+ssh://{SHIPIT_USER}@{host}/{release.app}"
    return {"uri": uri, **({"digest": {"gitCommit": origin.id}} if origin.commit else {"name": origin.id})}


def encoded(said: dict[str, Any]) -> bytes:
    """The bytes that are printed and signed."""
    return (json.dumps(said, indent=2) + "\n").encode()


def signature(layout: Layout, statement: bytes) -> str:
    """Sign with the server's own key, as ssh-keygen makes and verifies it."""
    import tempfile

    key = _key(layout)
    with tempfile.TemporaryFile() as file:
        file.write(statement)
        file.flush()
        file.seek(0)
        return run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE], stdin=file.fileno()).out


def signer(layout: Layout, host: str) -> str:
    """The server's public key as a line of allowed signers (ssh-keygen(1))."""
    public = _key(layout).with_suffix(".pub").read_text().split()
    if len(public) < 2:
        raise HostFault("The public half of the server's provenance key is damaged.")
    return f'{SHIPIT_USER}@{host} namespaces="{NAMESPACE}" {public[0]} {public[1]}'


def _key(layout: Layout) -> Path:
    """The key's file; made if it is missing. Two processes that make it at once end up with the same key."""
    path = layout.provenance_key
    with disk.locked(path.with_suffix(".lock"), wait=True):
        if not path.exists():
            new = path.with_suffix(".new")
            for left in (new, Path(f"{new}.pub")):
                disk.remove_file(left)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", SHIPIT_USER, "-f", new])
            Path(f"{new}.pub").rename(path.with_suffix(".pub"))
            new.rename(path)
            disk.fsync_dir(path.parent)
    return path
