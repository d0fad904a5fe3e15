"""`doctor`: checks the whole installation; `--fix` makes every app equal to its ledger."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

import click

from receiver.cli import out
from receiver.cli.args import json_option
from receiver.cli.deploy import rebuild
from receiver.cli.main import Context, become_shipit
from receiver.cli.ps import restarted
from receiver.errors import Busy, Failure, HostFault
from receiver.gate.examine import key_findings, mend_keys
from receiver.ledger.ledger import Ledger, apps
from receiver.ledger.queue import queued
from receiver.names import AppName
from receiver.records import Corrupt, Newer
from receiver.root.client import Agent
from receiver.story.examine import app_findings
from receiver.story.examine_host import host_findings, python_findings
from receiver.story.finding import Finding
from receiver.story.mend import mend
from receiver.story.submit import tell
from receiver.system.told import told

# How long to wait for a change that is under way; after that its app is left alone (s).
PATIENCE = 10.0


@click.command()
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
@json_option
@click.pass_obj
def doctor(ctx: Context, fix: bool, form: str) -> int:
    """Check the whole installation and every app; exit 1 when something is not well.

    On the server, as root, it also checks the host: sshd, nginx, users, sockets, disk.

    \b
    Example: shipit doctor --fix
    """
    findings: list[Finding] = []
    mended: list[str] = []
    if os.geteuid() == 0:
        from receiver.story.elsewhere import names_elsewhere
        from receiver.story.outdated import outdated_apps, outdated_proxy

        proxy = outdated_proxy(ctx.layout)
        if fix and not proxy.well and proxy.outdated and renewed(ctx, mended):
            proxy = outdated_proxy(ctx.layout)
        findings += [*host_findings(ctx.layout), proxy, *python_findings(ctx.layout)]
        findings += names_elsewhere(ctx.layout, ctx.settings)
        with suppress(HostFault):  # another finding says that the agent does not answer
            findings += outdated_apps(ctx.layout)
        become_shipit()
    keys = list(key_findings(ctx.layout))
    if fix and any(not one.well and one.mends for one in keys):
        try:
            mend_keys(ctx.layout)
            mended.append("host: the lines of the keys")
        except (Failure, OSError) as failure:
            mended.append(f"host: left as it is: {failure}")
        keys = list(key_findings(ctx.layout))
    findings += keys
    for finding in [f for f in findings if fix and not f.well and f.subject != "host" and (f.dead or f.outdated)]:
        how, done = (rebuild, "built again") if finding.dead else (restarted, "restarted")
        if went_live(ctx, AppName(finding.subject), how):
            findings.remove(finding)
            mended.append(f"{finding.subject}: {done}")
    try:
        with ctx.connect_agent() as agent:
            for app in apps(ctx.layout):
                before = list(app_findings(ctx.layout, app, agent))
                if fix and not all(f.well for f in before):
                    mended += [f"{app}: {line}" for line in mend_in_turn(ctx, app, agent)]
                    before = list(app_findings(ctx.layout, app, agent))
                findings += before
    except HostFault as failure:
        # The findings so far are shown all the same.
        findings.append(Finding("host", failure.message, False, failure.hint))
    if form == "json":
        out.show_json({"findings": [vars(f) for f in findings], "mended": mended})
    else:
        show(findings, mended)
    return 0 if all(f.well for f in findings) else 1


def renewed(ctx: Context, mended: list[str]) -> bool:
    """Have nginx re-execute itself; `mended` gets a line about the result."""
    from receiver.proxy.renew import renew

    try:
        renew(ctx.layout)
    except Failure as failure:
        mended.append(f"host: left as it is: {failure.message}")
        return False
    mended.append("host: nginx started anew")
    return True


def went_live(ctx: Context, app: AppName, make: Callable[[Context, AppName], int]) -> bool:
    """Make a release of the app; returns whether it went live. Its log goes to standard error, not into the data."""
    data = os.dup(1)
    os.dup2(2, 1)
    try:
        return make(ctx, app) == 0
    except Failure as failure:
        told(failure)
        return False
    finally:
        sys.stdout.flush()
        os.dup2(data, 1)
        os.close(data)


def mend_in_turn(ctx: Context, app: AppName, agent: Agent) -> list[str]:
    """Repair the app while nobody changes it: a release that was just opened looks like one whose worker was killed."""
    try:
        with queued(Ledger(ctx.layout.app(app)), ctx.caller.name, push=False, say=tell, wait=PATIENCE, mends=True):
            return mend(ctx.layout, app, agent)
    except Busy as busy:
        return [f"left alone: {busy.message}"]
    except Corrupt as damage:
        return [f"left as it is: {damage.message} Put the file back from a backup."]
    except Newer as newer:
        return [f"left as it is: {newer.message}"]


def show(findings: list[Finding], mended: list[str]) -> None:
    """Print one line for each finding; if it is not well, also what to type."""
    for finding in findings:
        out.say(f"{'ok  ' if finding.well else 'FAIL'}  {finding.subject:<12} {finding.what}")
        if not finding.well:
            hint = finding.hint or ("Mend it: shipit doctor --fix" if finding.mends else "")
            for line in hint.splitlines():
                out.say(f"        {line}")
    for line in mended:
        out.say(f"mended  {line}")
    bad = sum(not f.well for f in findings)
    out.say(f"\n{len(findings)} looked at, {bad or 'none'} not well.")
