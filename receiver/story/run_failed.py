"""Reports a scheduled run that did not end with 0. systemd starts it (templates/systemd/shipit-run-failed@.service)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from receiver import names
from receiver.engines import all as engines
from receiver.ledger.ledger import open_app
from receiver.paths import Layout
from receiver.story import verdict


def main(which: str) -> None:
    """`which` is `blog:nightly:v7`, from the unit's name."""
    app, process, release = which.split(":")
    layout, kind, number = Layout(), names.type_name(process), names.release_number(release)
    ledger = open_app(layout, names.app_name(app))
    how = told(os.environ)
    lines = engines.here(layout).last_words(ledger.release(number), kind)
    verdict.run_failed(ledger, number, kind, ": ".join([how, *lines]))


def told(said: Mapping[str, str]) -> str:
    """How the run ended, from the variables that systemd sets (systemd.exec(5))."""
    result, status = said.get("MONITOR_SERVICE_RESULT", ""), said.get("MONITOR_EXIT_STATUS", "")
    if result == "timeout":
        return "it took longer than its schedule allows"
    if result == "oom-kill":
        return "it wanted more memory than it may have"
    if result == "exit-code":
        return f"it ended with exit code {status}"
    return f"it was ended by the signal {status}" if status else "it did not start"
