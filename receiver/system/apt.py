"""The command with which apt installs packages, and which packages are missing. Pure, except for `missing`."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.system.run import PATH, run

ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none"}
# The packages that build and run container images, and those that podman recommends and our containers need.
PODMAN = ("podman", "crun", "catatonit", "slirp4netns")
# The words of a command are its arguments, never shell text. If another apt is running, it waits for that one.
_INSTALL = """
apt-get -q -q update || echo "The lists of packages could not be renewed; going on with those that are there."
for name; do
    # Exactly this: apt takes a name that it does not know for a pattern, and its last letter for an order.
    apt-cache pkgnames "$name" | grep -qxF -- "$name" || { echo "There is no package $name in this Debian." >&2; exit 100; }
done
exec apt-get -q -y --no-remove --no-install-recommends -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install "$@"
"""


def install(packages: Sequence[str]) -> tuple[str, ...]:
    """The command that installs packages, which must be names that were parsed."""
    return ("/bin/sh", "-c", _INSTALL, "sh", *packages)


def by_hand(packages: Sequence[str]) -> str:
    """The same as an administrator types it."""
    return f"apt install --no-install-recommends {' '.join(packages)}"


def missing(packages: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    if not packages:
        return []
    form = "${Package} ${db:Status-Status}\n"
    told = run(["dpkg-query", "--show", f"--showformat={form}", *packages], check=False).out.split("\n")
    there = {line.partition(" ")[0] for line in told if line.endswith(" installed")}
    return [name for name in packages if name not in there]
