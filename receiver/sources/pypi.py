"""Finds the file of a package in an index, as `pip install NAME==V` does, and its digest (PEP 503, PEP 691)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin

from receiver.errors import HostFault, NotFound, Rejected
from receiver.sources.download import SILENCE, opened, shown
from receiver.system.ends import Ends

INDEX = "https://pypi.org/simple"
# The variables that name the server's own index, if its builds have one.
TOLD_BY = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
LARGEST, LONGEST = 2**26, 300.0  # limits of a list of files: bytes and seconds
_WANTED = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,100}[A-Za-z0-9])?)==([0-9][A-Za-z0-9.+!]{0,63})", re.ASCII)
_ACCEPT = "application/vnd.pypi.simple.v1+json"


def found(wanted: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """URL and SHA-256 of the wheel of NAME==VERSION that any machine can install, else of its source archive.

    `environment` is that of builds: it may name another index. Raises Rejected unless `wanted` is NAME==VERSION,
    NotFound if the index has no such file, HostFault if it does not answer.
    """
    match = _WANTED.fullmatch(wanted)
    if not match:
        raise Rejected(f"{wanted[:80]!a} is no NAME==VERSION.", hint="deploy APP --pypi hello==1.2.0")
    name, version = re.sub(r"[-_.]+", "-", match[1]).lower(), match[2]
    index = next((environment[key] for key in TOLD_BY if environment.get(key)), INDEX).rstrip("/")
    page = f"{index}/{name}/"
    files = [file for file in _files(page) if _of(file, name, version)]
    wheels = [file for file in files if file["filename"].endswith("-none-any.whl")]
    sources = [file for file in files if file["filename"].endswith(".tar.gz")]
    for file in (*wheels, *sources):
        digest = file["hashes"].get("sha256") if isinstance(file.get("hashes"), dict) else None
        if isinstance(digest, str) and isinstance(file.get("url"), str):
            return urljoin(page, file["url"]), digest
    raise NotFound(
        f"{shown(index)} has no {name} {version} that every machine can install.",
        hint="Send the file that fits this server: ssh shipit@HOST deploy APP - < FILE.whl",
    )


def _files(page: str) -> list[dict[str, Any]]:
    connection, answer = opened(page, Ends(LONGEST, SILENCE), http=False, accept=_ACCEPT)
    try:
        raw = answer.read(LARGEST + 1)
        said = json.loads(raw) if len(raw) <= LARGEST else None
    except (OSError, HTTPException) as error:
        raise HostFault(f"{shown(page)} was cut off.", hint="Try again.") from error
    except (ValueError, RecursionError):
        said = None
    finally:
        connection.close()
    files = said.get("files") if isinstance(said, dict) else None
    if not isinstance(files, list):
        raise HostFault(f"{shown(page)} answers with no list of files as PEP 691 has it.")
    return [file for file in files if isinstance(file, dict) and isinstance(file.get("filename"), str)]


def _of(file: Mapping[str, Any], name: str, version: str) -> bool:
    """Whether a file is of this version, and was not withdrawn (yanked)."""
    stem = re.sub(r"\.tar\.gz$", "", file["filename"])
    project, _, rest = stem.rpartition("-") if stem != file["filename"] else stem.partition("-")
    told = rest if stem != file["filename"] else rest.partition("-")[0]
    return re.sub(r"[-_.]+", "-", project).lower() == name and told == version and not file.get("yanked")
