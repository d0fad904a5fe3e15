"""Stores the container image of a release. Runs in the build's cage, as the app's user, in the slug that points at it.

    image load      the image of shipit-image.json: from the archive that was sent, if the store has it not

podman reads and unpacks it, in a user namespace where root is this user: whatever an image holds, nobody with more
rights opens it. It is checked to be the one that was announced, by its digest. Images that no slug points at any more
are removed first. Only the standard library: started with -I -S.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from receiver.inside import container

POINTER = "shipit-image.json"


def main(argv: list[str]) -> None:
    """Always ends by SystemExit with the verdict."""
    if argv != ["load"]:
        raise SystemExit(f"image: {argv}")
    slug = Path.cwd()
    app = slug.parents[1]
    store = container.Store(str(app.parents[1] / "images" / app.name))
    pointer = json.loads((slug / POINTER).read_bytes())
    wanted = str(pointer["id"])
    # Where podman was last time, which is another place each time; of its containers, of which there are none here.
    # podman 4 keeps that in a directory, podman 5 in a database.
    shutil.rmtree(f"{store.path}/libpod", ignore_errors=True)
    for left in Path(store.path).glob("db.sql*"):
        left.unlink()
    kept = stored(store)
    remove_unused(store, kept, slug.parent, wanted)
    if wanted not in kept:
        load(store, app / "releases/images" / f"{wanted.removeprefix('sha256:')}.tar", wanted)
    (slug / container.STORED).write_text(json.dumps({"id": wanted, "port": int(pointer["port"])}) + "\n")
    raise SystemExit(0)


def load(store: container.Store, archive: Path, wanted: str) -> None:
    """Have podman take the archive; ends with its exit code when it does not."""
    if not archive.exists():
        print("The image is not stored any more. Send it again: docker save IMAGE | ssh HOST deploy APP -", flush=True)
        raise SystemExit(1)
    if code := store.call("load", "--quiet", "--input", str(archive)):
        print("podman does not take the image.", flush=True)
        raise SystemExit(code)
    if wanted not in stored(store):
        print(f"podman found another image in the archive than {wanted}.", flush=True)
        raise SystemExit(1)


def stored(store: container.Store) -> set[str]:
    """The images that podman has, by their digests."""
    lines = store.lines("images", "-aq", "--no-trunc")
    return {line if line.startswith("sha256:") else f"sha256:{line}" for line in lines}


def remove_unused(store: container.Store, kept: set[str], slugs: Path, wanted: str) -> None:
    """Remove the images that no release on the disk points at."""
    used = {wanted}
    for known in slugs.glob(f"v*/{container.STORED}"):
        try:
            used.add(str(json.loads(known.read_bytes())["id"]))
        except (OSError, ValueError, KeyError):
            # A slug that is just being removed.
            continue
    for image in sorted(kept - used):
        store.call("rmi", "--force", image, quiet=True)


if __name__ == "__main__":
    main(sys.argv[1:])
