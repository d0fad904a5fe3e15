"""podman, which builds and runs container images. shipit installs Debian's podman when an administrator deploys the
first image, because most servers never need it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from receiver.caller import Caller, Role
from receiver.errors import Denied, HostFault, as_root
from receiver.paths import AppPaths, Layout
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.sources.logins import how_to_use, logins_for, withheld
from receiver.sources.registry import HUB
from receiver.system import apt
from receiver.system.run import find, run


def missing() -> list[str]:
    """Which programs this server lacks to run container images."""
    return [name for name in ("podman", "crun") if not find(name)]


def refuse_without(settings: Settings, caller: Caller) -> None:
    """Before anything is received: raises Rejected, with the command for an administrator, unless podman is installed
    or the caller is an administrator, whose release installs it."""
    if not (gone := missing()):
        return
    lacks = f"This server has no {' and no '.join(gone)}; container images are built and run by podman"
    if not settings.containers:
        raise HostFault(
            f"{lacks}, and its settings say that shipit installs none (containers).", holds="Nothing was changed.",
            hint=f"On the server, once: {as_root(apt.by_hand(apt.PODMAN))}",
        )  # fmt: skip
    if caller.role is not Role.ADMIN:
        raise Denied(
            f"{lacks}. The key {caller.name} may not have it installed.", holds="Nothing was changed.",
            hint="An administrator types, once: shipit containers:setup",
        )  # fmt: skip


def install(agent: Agent, output: Callable[[], AbstractContextManager[int]], say: Callable[[str], None]) -> bool:
    """Install podman if it is missing, with apt's output at `output`; False if it was there. Raises HostFault, with the
    command for an administrator, if that fails."""
    if not missing():
        return False
    say(f"Installing podman on the server (apt), once, for all container images: {', '.join(apt.PODMAN)}")
    began = time.monotonic()
    with output() as descriptor:
        code = agent.install_podman(descriptor)
    if code or missing():
        why = f"apt ended with {code}" if code else "apt says that all is well, and there is no podman"
        raise HostFault(
            f"podman, which builds and runs container images, was not installed: {why}.",
            hint=f"On the server, once: {as_root(apt.by_hand(apt.PODMAN))}\nThen the same again.",
        )  # fmt: skip
    version = run(["podman", "--version"], check=False).out.strip() or "podman"
    say(f"Installed {version.replace(' version', '')} in {time.monotonic() - began:.0f} s")
    return True


def logins(layout: Layout, paths: AppPaths, text: str) -> dict[str, str]:
    """The registry logins that a build may use, {HOST: "USER:PASSWORD"}: the app's own and those of the server's that it
    may use, whose registry `text` names. Those for Docker Hub always, as images of it need no host name."""
    known = logins_for(layout, paths) if text else {}
    return {host: f"{who.user}:{who.password}" for host, who in known.items() if host == HUB or f"{host}/" in text}


def login_advice(layout: Layout, paths: AppPaths, advice: str) -> str:
    """What a failed build is advised, and how the app gets the server's login for the registry that it names."""
    found = sorted(host for host in withheld(layout, paths) if f"registry:login APP {host} " in advice)
    return "\n".join([advice, *(how_to_use(paths.name, host) for host in found)])
