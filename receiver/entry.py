"""The program `shipit`: the command line of a server where it is installed as one, its client everywhere else."""

from __future__ import annotations

import os
import sys

# The same as paths.PREFIX, which takes too long to import here.
SERVER = "/usr/lib/shipit/"


def main() -> None:
    """Never returns; raises SystemExit or becomes ssh(1)."""
    if os.path.realpath(sys.prefix).startswith(SERVER):  # no pathlib: it takes too long here
        from receiver.cli.main import main as serve

        serve()
    else:
        from receiver.client.main import main as ask

        ask(sys.argv[1:])
