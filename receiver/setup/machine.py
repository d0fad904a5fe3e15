"""What install.sh needs from the program that keeps services running on this machine: a module for each such engine."""

from __future__ import annotations

from typing import Protocol

from receiver.engines import all as engines
from receiver.paths import Layout
from receiver.settings import Settings
from receiver.setup.report import Step


class Services(Protocol):
    """Handles shipit's own services, nginx and sshd. Removing needs only the standard library."""

    def choose_http_port(self, layout: Layout, asked: int) -> int:
        """The proxy's port, 0 if the settings need no change; raises HostFault if another program has it."""

    def ssh_port(self, layout: Layout) -> int: ...

    def start(self, layout: Layout, known: Settings, step: Step, *, ssh_changed: bool, web_changed: bool) -> None:
        """Start everything, or make running services read what has changed."""

    def reload_ssh(self, layout: Layout, step: Step) -> None:
        """Make sshd read its configuration, if it runs; sessions go on."""

    def reload_proxy(self, layout: Layout, step: Step) -> None:
        """Make nginx read its configuration, if it runs, without dropping a connection."""

    def remove(self, layout: Layout, step: Step) -> None:
        """Stop and remove what receives; the apps' processes and nginx go on."""

    def remove_apps(self, layout: Layout, step: Step) -> None:
        """Kill every process of every app, and remove what would start it again."""


def services() -> Services:
    """The module for this machine."""
    from receiver.setup import embedded
    from receiver.setup import services as systemd

    known: dict[str, Services] = {"systemd": systemd, "embedded": embedded}
    return known[engines.machine()]
