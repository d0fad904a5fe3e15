"""Choosing what a rollback returns to, and saying what it changed."""

from __future__ import annotations

from collections.abc import Mapping

from receiver.errors import Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Release, Status
from receiver.names import ConfigKey
from receiver.proxy.endpoint import still_holds
from receiver.root.client import Agent
from receiver.sources.all import source_of

# How many commits a rollback lists; git log has all.
MOST = 10


def target_of(ledger: Ledger, number: int | None) -> Release:
    """The release to return to; it was live, and its files are there. Raises Rejected or NotFound; changes nothing."""
    current = ledger.current_number()
    if number is None:
        target = ledger.previous_good()
        if target is None:
            raise Rejected(
                f"There is no earlier good release of {ledger.app} to go back to.",
                holds=still_holds(ledger), hint=f"See what there is: shipit releases {ledger.app}",
            )  # fmt: skip
    else:
        target = ledger.release(number)
    if target.number == current:
        raise Rejected(f"{target.name} is live already.")
    if target.status is not Status.LIVE:
        raise Rejected(
            f"{target.name} was never live ({target.status.value}).",
            holds=still_holds(ledger), hint=f"See which were: shipit releases {ledger.app}",
        )  # fmt: skip
    if not ledger.is_whole(target):
        commit = f" {target.origin.short}" if target.origin else ""
        raise Rejected(
            f"{target.name} was pruned: its files are gone.",
            holds=still_holds(ledger),
            hint=f"Push its commit{commit} again; keep releases from being pruned: shipit releases:pin",
        )
    return target


def warm(agent: Agent, current: Release, target: Release, formation: object) -> int:
    """The release whose warm processes a rollback to `target` can take over, by the number they were started under; 0
    if there are none that match what the rollback would start."""
    if not current.warm or target.runs_as == current.runs_as or target.formation != formation:
        return 0
    return target.runs_as if target.runs_as in agent.warm(target.app) else 0


def changes(ledger: Ledger, current: Release, target: Release, config: list[str]) -> list[str]:
    """The changes from `current` to `target`, as lines to print: the commits, and the lines of `config`."""
    lines: list[str] = []
    now, then = current.origin, target.origin
    if now and then and now.id != then.id:
        gone = source_of(ledger.paths, now).changes(now, then, MOST + 1)
        lines += [f"  commit  - {short} {title}" for short, title in gone[:MOST]]
        lines += ["  commit  - …"] if len(gone) > MOST else []
        lines.append(f"  commit  = {then.short} {then.title}")
    return lines + config


def changed_config(now: Mapping[ConfigKey, str], then: Mapping[ConfigKey, str]) -> list[str]:
    """The names of the config vars that differ, as lines to print."""
    lines = []
    for key in sorted({*now, *then}):
        if key not in then:
            lines.append(f"  config  - {key}")
        elif key not in now:
            lines.append(f"  config  + {key}")
        elif now[key] != then[key]:
            lines.append(f"  config  ~ {key}")
    return lines
