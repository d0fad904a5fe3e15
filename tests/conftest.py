"""Fixtures and markers of all tests. Machines come from tests/lab; tests/README.md shows how to use them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).resolve().parent
for path in (str(HERE.parent), str(HERE)):
    if path not in sys.path:
        sys.path.insert(0, path)

from lab import net, snapshot, tree  # noqa: E402
from lab.client import Client  # noqa: E402
from lab.host import Box, Host  # noqa: E402
from lab.machine import Machine  # noqa: E402

if TYPE_CHECKING:
    from types import FrameType

HOSTS = {"host", "shared_host", "trixie_host", "bare_host", "bare_trixie"}
BOXES = {"box", "bare_box"}
NO_ROOT = "machines can be booted by root only; run it as root"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "host: boots a Debian machine with systemd; needs root")
    config.addinivalue_line("markers", "embedded: runs a Debian tree without systemd; needs root")
    config.addinivalue_line("markers", "slow: takes more than 20 s")
    signal.signal(signal.SIGTERM, end_like_an_interrupt)
    # A shell ignores it in what runs in the background, and then so would every client that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end_like_an_interrupt(_number: int, _frame: FrameType | None) -> None:
    """A run that is told to end still takes its machines down."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by the machines a test uses, or by its directory; tests of one shared host stay in one worker."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        below = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if used & HOSTS or below == "host":
            item.add_marker("host")
        if used & BOXES or below == "embedded":
            item.add_marker("embedded")
        if "shared_host" in used:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
        if os.geteuid() != 0 and (item.get_closest_marker("host") or item.get_closest_marker("embedded")):
            item.add_marker(pytest.mark.skip(reason=NO_ROOT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its machine has to say."""
    report = yield
    if report.when == "call" and report.failed:
        machines = {id(value): value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Machine)}
        for machine in machines.values():
            report.sections.append((f"the end of {machine.name}'s log", last_words(machine)))
    return report


def last_words(machine: Machine) -> str:
    if isinstance(machine, Host) and machine.leader:
        return machine.journal(lines=80)
    return machine.console()


@pytest.fixture(scope="session", autouse=True)
def swept() -> Iterator[None]:
    """Nothing of a killed earlier run is in the way, nothing of this one stays."""
    if os.geteuid() != 0:
        yield
        return
    net.sweep()
    yield
    net.sweep()


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The usual one at the start of each test: programs that a test runs within its own process set theirs."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A fresh server on which install.sh has run."""
    with Host.boot(snapshot.installed_tree(tree.SUITE), request.node.name) as machine:
        yield machine


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    """The same for all tests of a module: for tests that do not mind each other's apps."""
    with Host.boot(snapshot.installed_tree(tree.SUITE), "shared") as machine:
        yield machine


@pytest.fixture(scope="module")
def laptop(shared_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The administrator's, for all tests of a module that share its host."""
    return Client(shared_host, tmp_path_factory.mktemp("laptop"), key=snapshot.admin_key())


@pytest.fixture
def trixie_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A fresh trixie server on which install.sh has run."""
    with Host.boot(snapshot.installed_tree("trixie"), request.node.name) as machine:
        yield machine


@pytest.fixture
def bare_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A server with nothing on it; `bare_host.install()` runs install.sh."""
    with Host.boot(tree.base_tree(tree.SUITE), request.node.name) as machine:
        yield machine
        machine.keep_archives()


@pytest.fixture
def bare_trixie(request: pytest.FixtureRequest) -> Iterator[Host]:
    """The same on trixie."""
    with Host.boot(tree.base_tree("trixie"), request.node.name) as machine:
        yield machine
        machine.keep_archives()


@pytest.fixture
def bare_box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A tree without a running systemd and with nothing installed."""
    with Box.boot(tree.base_tree(tree.SUITE), request.node.name) as machine:
        yield machine
        machine.keep_archives()


@pytest.fixture
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A tree without a running systemd, on which install.sh has run; nothing is started yet.

    `box.run("shipit-supervisord", "start")` does that, or `box.run_as_main(…)` with a command that stays.
    """
    with Box.boot(snapshot.installed_tree(tree.SUITE, box=True), request.node.name) as machine:
        yield machine


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[..., Client]:
    """Make laptops: `client_of(host, "ann")` has a key of its own, `admin=True` the administrator's."""

    def make(machine: Machine, name: str = "laptop", *, admin: bool = False) -> Client:
        return Client(machine, tmp_path / name, key=snapshot.admin_key() if admin else None)

    return make


@pytest.fixture
def client(request: pytest.FixtureRequest, client_of: Callable[..., Client]) -> Client:
    """The administrator's laptop, for whichever machine the test has asked for (`host` if for none)."""
    others = ("trixie_host", "bare_trixie", "shared_host", "box", "bare_box", "bare_host")
    used = [name for name in others if name in request.fixturenames]
    machine: Machine = request.getfixturevalue(used[0] if used else "host")
    return client_of(machine, admin=True)
