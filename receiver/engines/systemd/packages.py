"""Installs Debian packages for an app or its containers: in a transient unit, since the agent cannot change the
system."""

from __future__ import annotations

import os
from collections.abc import Sequence

from receiver.engines.base import app_word
from receiver.engines.systemd.ctl import systemctl
from receiver.names import AppName
from receiver.paths import Layout
from receiver.system import apt
from receiver.system.run import CLEAN, find, start

INSTALL_TIMEOUT = 1800
PODMAN_RUNS = ("podman.socket", "podman.service", "podman-auto-update.timer")
PODMAN_UNITS = (*PODMAN_RUNS, "podman-auto-update.service", "podman-restart.service", "podman-clean-transient.service")


class Packages:
    """See `Installs` and `Containers` for the promises."""

    _layout: Layout

    def install_packages(self, app: AppName, packages: Sequence[str], output: int) -> int:
        return self._apt(app_word(app), packages, output)

    def install_podman(self, output: int) -> int:
        # If podman was here before, its services may have users: only what is missing is installed.
        new = find("podman") is None
        # Two apps may ask at once; the second apt waits for the first.
        code = self._apt(f"-podman-{os.getpid()}", apt.PODMAN, output)
        if new and not code:
            # Debian's package starts services of podman's as root, which nobody here needs. Some versions have fewer.
            for unit in PODMAN_UNITS:
                systemctl("disable", "--quiet", "--no-reload", unit, check=False)
            systemctl("stop", *PODMAN_RUNS, check=False)
        return code

    def _apt(self, unit: str, packages: Sequence[str], output: int) -> int:
        # apt sees nothing of the apps, and nothing of it outlives it. Scripts of packages run as root, as always in
        # Debian.
        properties = (
            f"InaccessiblePaths=-{self._layout.apps}", "ProtectHome=read-only", "PrivateTmp=yes",
            "ProtectKernelTunables=yes", "ProtectClock=yes", "RestrictRealtime=yes", "LockPersonality=yes",
            f"RuntimeMaxSec={INSTALL_TIMEOUT}", "TimeoutStopSec=60",
            *(f"Environment={name}={value}" for name, value in apt.ENVIRONMENT.items()),
        )  # fmt: skip
        words = [word for line in properties for word in ("-p", line)]
        words += [f"--unit=shipit-apt-{unit}.service", "--"]
        argv = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *words]
        return start([*argv, *apt.install(packages)], env=CLEAN, stdout=output, stderr=output).wait()
