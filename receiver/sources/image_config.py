"""Reads an image's configuration: where it listens, how it is started, and for which machine it is made."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from receiver.errors import Rejected, printable
from receiver.inside.container import healthcheck
from receiver.sources.image_members import MAX_NAME, bad
from receiver.sources.oci import PROCESSORS

PROCESS = "shipit.process."  # the prefix of the label of a process type
# As a process's whole command it means: what the image itself starts, its ENTRYPOINT with its CMD
# (inside/container.py).
OWN = "CMD"


def labelled(config: Mapping[str, Any]) -> dict[str, str]:
    """The Procfile and the shipit.yml that an image's labels stand for; each label has only one line.

    `shipit.process.TYPE` is a line of the Procfile, `shipit.release` its release command, `shipit.yml` that file. `web`
    is what the image starts, unless a label says otherwise; an empty label means no `web`.
    """
    said = config.get("config")
    labels = said.get("Labels") if isinstance(said, dict) else None
    found = {str(key): str(value).strip() for key, value in labels.items()} if isinstance(labels, dict) else {}
    lines = {"web": OWN} | {
        key.removeprefix(PROCESS): value for key, value in sorted(found.items()) if key.startswith(PROCESS)
    }
    lines["release"] = found.get("shipit.release", "")
    for name, line in lines.items():
        if "\n" in name + line:
            raise bad(f"the label of {name[:40]!a} has more than one line")
    files = {"Procfile": "".join(f"{name}: {line}\n" for name, line in lines.items() if line)}
    return files | ({"shipit.yml": found["shipit.yml"] + "\n"} if found.get("shipit.yml") else {})


def workdir(config: Mapping[str, Any]) -> str:
    """The working directory of an image's processes (WORKDIR), "" if it names none."""
    said = config.get("config")
    told = said.get("WorkingDir") if isinstance(said, dict) else None
    return printable(told)[:MAX_NAME] if isinstance(told, str) else ""


def check(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    said = config.get("config")
    return healthcheck(said.get("Healthcheck")) if isinstance(said, dict) else None


def exposed(config: Mapping[str, Any]) -> int:
    """The lowest TCP port that an image says it listens on (EXPOSE), 0 for none."""
    said = config.get("config")
    told = said.get("ExposedPorts") if isinstance(said, dict) else None
    ports = [str(name).partition("/") for name in told] if isinstance(told, dict) else []
    found = (int(number) for number, _, kind in ports if number.isdecimal() and kind in ("", "tcp"))
    return min((port for port in found if 0 < port < 2**16), default=0)


def fits_here(config: Mapping[str, Any]) -> None:
    here = PROCESSORS.get(platform.machine(), platform.machine())
    made = config.get("architecture", here), config.get("os", "linux")
    if made != (here, "linux"):
        raise Rejected(
            f"The image is for {printable(str(made[1]))[:20]}/{printable(str(made[0]))[:20]}; this server is linux/{here}.",
            holds="Nothing was received.", hint=f"Build it for that: docker build --platform linux/{here} …",
        )  # fmt: skip
