"""Every engine keeps the same promises: promises.py runs on a machine of each kind, one promise a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import snapshot, tree
from lab.background import wait_for
from lab.host import Box, Host
from lab.machine import Machine

PROMISES = Path(__file__).with_name("promises.py")
# In the order in which they stand; these need a machine that was started again, or leave no app.
LAST = ("what_boots_is_chosen", "the_chosen_one_came_up", "what_is_forgotten_leaves_nothing")
PYTHON = "/usr/lib/shipit/current/bin/python"
RECONCILED = """
from receiver.engines.embedded import supervisord
from receiver.paths import Layout
raise SystemExit(supervisord.Supervisor(Layout()).programs()["shipit-reconcile"]["statename"] != "EXITED")
"""
KINDS = [
    pytest.param("systemd", marks=[pytest.mark.host, pytest.mark.xdist_group("contract-systemd")]),
    pytest.param("embedded", marks=[pytest.mark.embedded, pytest.mark.xdist_group("contract-embedded")]),
]


def promises() -> list[str]:
    module = ast.parse(PROMISES.read_text())
    after = PROMISES.read_text().partition("# -- the promises")[0].count("\n")
    names = [node.name for node in module.body if isinstance(node, ast.FunctionDef) and node.lineno > after]
    return [name for name in names if name not in (*LAST, "main")]


@pytest.fixture(scope="module", params=KINDS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    made: Machine
    if request.param == "systemd":
        made = Host.boot(snapshot.installed_tree(tree.SUITE), "contract")
    else:
        made = Box.boot(snapshot.installed_tree(tree.SUITE, box=True), "contract")
        made.run_as_main("shipit-supervisord", "run")
        wait_for("the agent", lambda: made.exists("/run/shipit/agent.sock"))
    with made:
        made.write("/root/promises.py", PROMISES.read_text())
        yield made


def holds(machine: Machine, promise: str) -> None:
    done = machine.run(PYTHON, "-I", "/root/promises.py", promise, check=False)
    if done.code == 77:
        pytest.skip("this machine's control groups bound no memory (security/test_build.py shows it)")
    assert done.code == 0, f"{done.out}\n{done.err}"


@pytest.mark.parametrize("promise", promises())
def test_an_engine_promises_that(machine: Machine, promise: str) -> None:
    holds(machine, promise)


def test_an_engine_promises_that_the_chosen_release_comes_up_with_the_machine(machine: Machine) -> None:
    holds(machine, LAST[0])
    machine.reboot()
    if isinstance(machine, Box):
        # It starts what the ledger says is live, also what the promise has just stopped behind the ledger's back.
        wait_for(
            "the boot's reconcile to end", lambda: machine.run(PYTHON, "-I", "-c", RECONCILED, check=False).code == 0
        )
    holds(machine, LAST[1])


def test_an_engine_promises_that_what_is_forgotten_leaves_nothing(machine: Machine) -> None:
    holds(machine, LAST[2])
