"""The operational capabilities of this shipit: one row each."""

from __future__ import annotations

from receiver.ops.base import Capability, SectionOf
from receiver.ops.notify.capability import NotifyCapability
from receiver.ops.tls import TlsCapability
from receiver.ops.vm import VMCapability

ALL: tuple[Capability, ...] = (NotifyCapability(), TlsCapability(), VMCapability())


def sections() -> tuple[SectionOf, ...]:
    """The capabilities' sections of shipit.yml, for `read_manifest`."""
    return tuple(map(SectionOf, ALL))
