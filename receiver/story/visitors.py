"""Refuses a change that would leave an app without a web process, unless the user says that this is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.errors import Rejected
from receiver.model import WEB, AppState, Listen, ProcessType, Release
from receiver.names import TypeName
from receiver.proxy.endpoint import takes_requests


def refuse_to_drop_web(
    current: Release | None,
    state: AppState,
    processes: Sequence[ProcessType],
    counts: Mapping[TypeName, int],
    how: str,
    *,
    static: str = "",
) -> None:
    """Raise Rejected if `current` takes requests and the new release, with these processes and counts, would not.

    `static` names the pages that nginx would serve; these take requests as well. `how` is the command that allows it.
    """
    if static or current is None or state.stopped or not takes_requests(current):
        return
    web = next((process for process in processes if process.type == WEB), None)
    if web is not None and web.listen is not Listen.NONE and counts.get(WEB, 0):
        return
    if web is None:
        from receiver.manifest.problems import near

        other = near(WEB, [process.type for process in processes])
        what = "it has no process type 'web'" + (f", but {other!r}" if other else "")
    else:
        what = "it listens nowhere" if web.listen is Listen.NONE else "no web process would run"
    raise Rejected(
        f"This would take {state.app} away from its visitors: {what}.",
        holds=f"Nothing was changed; {current.name} stays.",
        hint=how,
    )
