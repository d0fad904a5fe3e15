"""Stores the disk of a virtual machine for its releases. Runs in the build's sandbox, as the build's user, in the slug.

    disk store HEX FORMAT     into .disk/, from the file that was sent, or else from another release that has it disk
    give                 on standard output: the disk; with its shipit.yml in a tar, if it has one

The image is untrusted: it is checked once more here (diskimage.py), and qemu-img, which is told the format, copies it
into a new qcow2. The user who runs the machine can read that one and not write it. Releases with the same disk share
it, as they share an environment. Standard library only: started with -I -S.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from receiver.inside import diskimage

PLACE = ".disk"
BASE, KNOWN = f"{PLACE}/base.qcow2", f"{PLACE}/disk.json"
YML = "shipit.yml"
QEMU_IMG = "/usr/bin/qemu-img"
CHUNK = 2**20
AGAIN = "Send it again: ssh HOST deploy APP - < DISK"


def main(argv: list[str]) -> None:
    """Always ends by SystemExit with the exit code."""
    if argv == ["give"]:
        raise SystemExit(give(Path.cwd()))
    if len(argv) != 3 or argv[0] != "store":
        raise SystemExit(f"disk: {argv}")
    raise SystemExit(store(Path.cwd(), argv[1], argv[2]))


def store(slug: Path, digest: str, format: str) -> int:
    """Make .disk/ in the slug; returns an exit code."""
    place = slug / PLACE
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    sent = slug.parents[1] / "releases/disks" / digest
    if not sent.exists():
        return again(slug, digest)
    with sent.open("rb") as file:
        try:
            found = diskimage.examined(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except diskimage.Wrong as wrong:
            print(f"The disk cannot be taken: {wrong}.", flush=True)
            return 1
    if found.format != format:
        print(f"The disk is {found.format}, and was announced as {format}.", flush=True)
        return 1
    if code := subprocess.call(
        [QEMU_IMG, "convert", "-q", "-f", format, "-O", "qcow2", str(sent), str(slug / BASE)], stdin=subprocess.DEVNULL
    ):
        print("qemu-img does not take the disk.", flush=True)
        return code if code > 0 else 1
    first = subprocess.run(
        [QEMU_IMG, "dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=1", f"if={slug / BASE}", f"of={place}/first"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if first.returncode:
        return 1
    firmware = "uefi" if diskimage.starts_by_uefi((place / "first").read_bytes()) else "bios"
    (place / "first").unlink()
    if missing := diskimage.no_firmware(firmware):
        print(missing, flush=True)
        return 1
    known = {"id": digest, "size": found.size, "firmware": firmware}
    (slug / KNOWN).write_text(json.dumps(known) + "\n")
    return 0


def give(slug: Path) -> int:
    """Write the disk in a form that can be sent again; returns an exit code. A running machine does not change it."""
    yml = slug / YML
    with (slug / BASE).open("rb") as file, open(1, "wb", closefd=False) as out:
        if not yml.is_file():
            shutil.copyfileobj(file, out, CHUNK)
            return 0
        import tarfile

        with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as archive:
            for name, content in (YML, yml.open("rb")), ("disk.qcow2", file):
                info = tarfile.TarInfo(name)
                info.size = os.fstat(content.fileno()).st_size
                archive.addfile(info, content)
    return 0


def again(slug: Path, digest: str) -> int:
    """Copy the disk from another release."""
    for known in sorted(slug.parent.glob(f"v*/{KNOWN}")):
        try:
            same = json.loads(known.read_bytes())["id"] == digest
        except (OSError, ValueError, KeyError):
            continue
        if same and not (known.parent).is_symlink():
            for name in (BASE, KNOWN):
                shutil.copyfile(known.parent.parent / name, slug / name)
            return 0
    print(f"The disk is not stored any more. {AGAIN}", flush=True)
    return 1


if __name__ == "__main__":
    main(sys.argv[1:])
