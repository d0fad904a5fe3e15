"""What install.sh asks of whatever keeps services running on this machine: a module for each engine that does."""

from __future__ import annotations

from typing import Protocol

from receiver.engines import all as engines
from receiver.paths import Layout
from receiver.settings import Settings
from receiver.setup.report import Step


class Services(Protocol):
    """shipit's own services, nginx and sshd. What removes needs the standard library only."""

    def choose_http_port(self, layout: Layout, asked: int) -> int:
        """The proxy's port, 0 when the settings need no change; raises HostFault when another program has it."""

    def ssh_port(self, layout: Layout) -> int: ...

    def start(self, layout: Layout, known: Settings, step: Step, *, ssh_changed: bool, web_changed: bool) -> None:
        """Start everything, or make what runs read what has changed."""

    def reload_ssh(self, layout: Layout, step: Step) -> None:
        """Make sshd read its configuration, if it runs; sessions stay."""

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
