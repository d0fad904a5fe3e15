"""`tests/run shell [bookworm|trixie] [bare] [box] [limits]`: a machine to look around in; it ends with the shell."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from . import net, snapshot
from .client import Client
from .host import Box, Host
from .machine import Machine
from .tree import SUITES, base_tree


def main(words: list[str]) -> int:
    unknown = set(words) - {*SUITES, "bare", "box", "limits"}
    if unknown:
        print(f"unknown: {' '.join(sorted(unknown))}\n{__doc__}", file=sys.stderr)
        return 2
    suite = next((word for word in words if word in SUITES), SUITES[0])
    kind: type[Machine] = Box if "box" in words else Host
    tree = base_tree(suite) if "bare" in words else snapshot.installed_tree(suite, box=kind is Box)
    net.sweep()
    with tempfile.TemporaryDirectory() as home, kind.boot(tree, "shell", limits="limits" in words) as machine:
        laptop = Client(machine, Path(home) / "laptop", key=snapshot.admin_key())
        print(f"{suite} at {machine.ip}. From outside:  http://{machine.ip}/")
        if "bare" not in words:
            laptop.trust()
            print(f"  as the administrator:  ssh -F {laptop.dir / 'config'} {machine.ip} apps")
            print(f"  to push:               {laptop.git_command()} git push shipit@{machine.ip}:APP main")
        enter = ["nsenter", "--target", str(machine.leader), "--all", "env", "TERM=xterm", "HOME=/root", "bash", "-l"]
        return subprocess.run(enter, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
