"""What was installed for a release, and its bill of materials (CycloneDX).

A program of the build's user makes the list (inside/parts.py), so its text is untrusted here.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from receiver import __version__
from receiver.errors import Failure, HostFault, NotFound, Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Release
from receiver.root.client import Agent
from receiver.runtimes.base import Part
from receiver.system.drain import drained

# Bytes of the list; one part takes some hundred.
MOST = 2**25
LONGEST = 300  # characters of a field
KINDS = ("pypi", "npm", "golang", "gem", "composer", "deb", "rpm", "oci", "generic")
# Package URLs of Debian's and Red Hat's packages need a distribution; the list does not say which one.
NAMESPACES = {"deb": "debian/", "rpm": "rpm/"}
# Licences that are given as SPDX ids; any other text is given as it is.
SPDX = frozenset(
    {
        "MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "ISC", "MPL-2.0", "Unlicense", "Zlib",
        "PSF-2.0", "Python-2.0", "CC0-1.0", "CC-BY-4.0", "BlueOak-1.0.0", "LGPL-2.1-only", "LGPL-2.1-or-later",
        "LGPL-3.0-only", "LGPL-3.0-or-later", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later",
        "AGPL-3.0-only", "AGPL-3.0-or-later", "Ruby", "WTFPL", "HPND", "BSL-1.0",
    }
)  # fmt: skip


def parts_of(ledger: Ledger, agent: Agent, release: Release) -> list[Part]:
    """What was installed for a release, by kind and name. Raises NotFound when its files are not kept any more."""
    if not release.slug:
        raise NotFound(f"{release.name} of {ledger.app} has no files.")
    if not ledger.is_whole(release):
        raise NotFound(f"The files of {release.name} are not kept any more.")
    with drained(MOST) as said:
        code = agent.list_parts(release.app, release.number, said.fd)
    raw = said.text
    if code:
        raise HostFault(
            f"What was installed for {release.name} cannot be listed (exit code {code}).",
            details=raw.decode(errors="replace").splitlines()[-3:],
        )
    return sorted(set(parsed(raw)), key=lambda part: (part.kind, part.name, part.version, part.more))


def parsed(raw: bytes) -> Iterable[Part]:
    """The parts in a list; raises HostFault if it is not such a list. Parts without a usable name are left out."""
    try:
        for line in raw.splitlines():
            said = json.loads(line)
            more = tuple(sorted((str(key), str(value)) for key, value in said["more"]))
            words = [said["name"], said["version"], said["license"], *(word for pair in more for word in pair)]
            known = said["kind"] in KINDS and type(said["tool"]) is bool
            if known and all(type(word) is str and len(word) <= LONGEST and word.isprintable() for word in words):
                yield Part(said["kind"], said["name"], said["version"], said["license"], said["tool"], more)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HostFault("The list of what was installed could not be read.") from error


def purl(part: Part) -> str:
    """The part's package URL (https://github.com/package-url/purl-spec)."""
    name = "/".join(quote(word, safe="-._~") for word in part.name.split("/"))
    more = "&".join(f"{key}={quote(value, safe='-._~:')}" for key, value in part.more)
    if part.kind == "oci":
        # An image: the name is the last word of its repository without the tag, the version is the digest.
        name = quote(part.name.rpartition("/")[2].partition(":")[0].lower(), safe="-._~")
    version = quote(part.version, safe="-._~:")
    if part.kind == "oci":
        version = version.replace(":", "%3A")
    return f"pkg:{part.kind}/{NAMESPACES.get(part.kind, '')}{name}@{version}" + (f"?{more}" if more else "")


def versions(parts: Iterable[Part]) -> dict[str, str]:
    """Kind and name → version; several versions are joined to one word."""
    found: dict[str, set[str]] = {}
    for part in parts:
        found.setdefault(f"{part.kind}/{part.name}", set()).add(part.version)
    return {name: " ".join(sorted(all_)) for name, all_ in found.items()}


def bill(release: Release, parts: Iterable[Part]) -> dict[str, Any]:
    """The bill of a release in CycloneDX 1.6. The same release gives the same bill."""
    components = {purl(part): component(part) for part in parts}
    facts = {"commit": release.commit or "", "source": release.origin.kind if release.origin else "",
             "runtime": release.runtime, "slug": release.digest}  # fmt: skip
    about: dict[str, Any] = {
        "type": "application", "bom-ref": "release", "name": release.app, "version": release.name,
        "properties": [{"name": f"shipit:{name}", "value": value} for name, value in facts.items() if value],
    }  # fmt: skip
    named = json.dumps([release.app, release.number, release.created, sorted(components)])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, named)}",
        "version": 1,
        "metadata": {
            "timestamp": when(release.finished or release.created),
            "tools": {"components": [{"type": "application", "name": "shipit", "version": __version__}]},
            "component": about,
        },
        "components": list(components.values()),
        "dependencies": [
            {"ref": "release", "dependsOn": sorted(components)},
            *({"ref": ref, "dependsOn": []} for ref in sorted(components)),
        ],
    }


def component(part: Part) -> dict[str, Any]:
    group, slash, name = part.name.rpartition("/") if part.kind in ("npm", "composer") else ("", "", part.name)
    kind = {"oci": "container", "generic": "platform"}.get(part.kind, "application" if part.tool else "library")
    licence = {"id": part.license} if part.license in SPDX else {"name": part.license}
    return {
        "type": kind, "bom-ref": purl(part), **({"group": group} if slash else {}), "name": name,
        "version": part.version, "purl": purl(part),
        **({"licenses": [{"license": licence}]} if part.license else {}),
    }  # fmt: skip


def when(then: float) -> str:
    """The time in UTC as RFC 3339 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(then))


def dependencies(ledger: Ledger, agent: Agent, release: Release) -> Mapping[str, str] | str:
    """`versions` of a release, or why they are not known."""
    try:
        return versions(parts_of(ledger, agent, release))
    except Rejected as gone:
        return gone.message
    except Failure as failure:
        return f"{release.name}: {failure.message}"
