"""Which layers of an app's container images the server has already, so that they need not be sent again."""

from __future__ import annotations

import json
from contextlib import suppress

from receiver.errors import Failure
from receiver.ledger.ledger import Ledger
from receiver.sources.all import source_of
from receiver.sources.image import POINTER


def stored_layers(ledger: Ledger) -> frozenset[str]:
    """The digests of the unpacked layers of images that were sent, and whose releases are still on the disk."""
    found: set[str] = set()
    for number in ledger.built():
        with suppress(Failure, OSError, ValueError, AttributeError):
            release = ledger.release(number)
            if release.image and release.digest and release.origin:
                pointer = source_of(ledger.paths, release.origin).tree(release.origin).read(POINTER)
                found |= {str(layer) for layer in json.loads(pointer or b"{}").get("layers", ())}
    return frozenset(found)
