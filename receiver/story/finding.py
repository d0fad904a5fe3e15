"""One thing that `shipit doctor` has looked at."""

from __future__ import annotations

import pwd
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. `hint` is what to type if it is not well; `mends`: reconcile repairs it; `dead`:
    only building the live commit again does; `outdated`: only a restart does, of nginx or the app."""

    subject: str
    what: str
    well: bool
    hint: str = ""
    mends: bool = False
    dead: bool = False
    outdated: bool = False


def has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
