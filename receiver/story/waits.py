"""Waiting until a commit has passed its checks, before it is deployed: a status at a URL, or the app's own command.

Nothing here blocks: each look asks once; if the answer is not known yet, the next look asks again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

from receiver.errors import Rejected
from receiver.ledger.ledger import Ledger
from receiver.names import Oid
from receiver.root.client import Agent
from receiver.root.oneoff import run_unwatched
from receiver.sources.pull.status import Verdict, asked, is_url
from receiver.sources.pull.wish import Place

PENDING = 75  # exit code of a command that has no answer yet (sysexits EX_TEMPFAIL)
LONGEST = 120.0  # seconds that a command may take


def verdict_on(
    ledger: Ledger, connect: Callable[[], Agent], place: Place, wait_for: str, commit: Oid, ref: str
) -> tuple[Verdict, str]:
    """What the URL or the command says of a commit. Raises HostFault; Rejected if there is no release to run it in."""
    if is_url(wait_for):
        return asked(place, wait_for, commit)
    current = ledger.current()
    if current is None or not current.slug:
        raise Rejected(
            f"{ledger.app} has no live release yet, in which the command of --wait-for would run.",
            hint=f"Without waiting, once: shipit git:sync {ledger.app} --wait-for off",
        )
    line = f"export COMMIT={shlex.quote(commit)} REF={shlex.quote(ref)}\n{wait_for}"
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        with connect() as agent:
            code, lines = run_unwatched(
                agent, ledger.paths, current, line, stdin=null, seconds=LONGEST, what="The command of --wait-for"
            )
    finally:
        os.close(null)
    why = (lines[-1][:200] if lines else "") or f"exit code {code}"
    return {0: Verdict.SUCCESS, PENDING: Verdict.PENDING}.get(code, Verdict.FAILURE), why
