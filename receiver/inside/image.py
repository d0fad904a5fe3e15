"""Makes and stores the container image of a release. Runs in the build's sandbox, in the release's slug.

    image note              as the build's user: note which image the slug is of (an image that was sent)
    image build FILE LIMIT  as the build's user: build by this Dockerfile of the slug; LIMIT: bytes that its store may keep
    image store             as the app's user: podman stores the image, from the archive that was sent or from the build
    image give              as the app's user: the image as an archive, on standard output

podman reads, builds and unpacks in a user namespace where root is this user, so no user with more rights opens an
image, whatever is in it. Builds use a store of the build's user, so that they never touch what the app's processes use;
then the layers that the app's store lacks are handed over. The digest shows that an image is the announced one. Images
that no slug points at any more are removed first. Standard library only: started with -I -S.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from receiver.inside import container, pretend

if False:  # typing is slow to import
    from typing import Any

POINTER = "shipit-image.json"
# The image on its way from the build to the app's store, as an OCI layout; root removes it.
HANDED = "shipit-image.built"
NAME = "localhost/app"
# The logins for registries, {HOST: "USER:PASSWORD"}: in the builder's environment, but in no build step's.
REGISTRIES = "SHIPIT_REGISTRIES"
# A registry on this machine may use http, as with docker.
NEAR = re.compile(r"(?:localhost|127\.[0-9.]+|\[::1\])(?::[0-9]+)?(?=/)")
RUNTIME = "/usr/lib/shipit/current/share/shipit/libexec/crun"
APT = "/etc/apt/apt.conf.d/zz-shipit"


def main(argv: list[str]) -> None:
    """Always ends by SystemExit with the exit code."""
    pretend.one_user()
    slug = Path.cwd()
    if argv == ["note"]:
        pointer = json.loads((slug / POINTER).read_bytes())
        note(slug, {key: pointer[key] for key in ("id", "port", "layers", "workdir", "check") if key in pointer})
    elif argv == ["store"]:
        take(slug)
    elif argv == ["give"]:
        give(slug)
    elif argv[:1] == ["build"] and len(argv) == 3:
        build(slug, argv[1], int(argv[2]))
    else:
        raise SystemExit(f"image: {argv}")
    raise SystemExit(0)


def note(slug: Path, image: dict[str, Any]) -> None:
    """Note which image the slug is of, for the launcher and for the next build: its id, its port, the digests of its
    layers, its working directory, its HEALTHCHECK."""
    (slug / container.STORED).write_text(json.dumps(image) + "\n")


def build(slug: Path, file: str, limit: int) -> None:
    """Build the image; ends with podman's exit code when that fails."""
    app = slug.parents[1]
    store = opened(f"{app.parents[1]}/images/{app.name}.build")
    new = not store.lines("images", "-q")
    with contextlib.suppress(OSError):
        # The builder made it; it is no part of the app.
        (slug / ".shipit-data").rmdir()
    for top, directories, files in os.walk(slug):
        # podman finds a cached layer by the files copied into it: their times must not depend on the commit.
        for name in (*directories, *files):
            os.utime(f"{top}/{name}", (0, 0), follow_symlinks=False)
    # A build step may be anybody's code. It sees only its own layer of this store, and none of the store's processes
    # (PID namespace); so it cannot write to another layer, which a later build takes from here.
    kept = ["--isolation=rootless", f"--runtime={RUNTIME}", "--pid=private", "--network=host", "--uts=host"]
    words = ["build", *kept, "--format=docker", "--layers", f"--file={file}", f"--tag={NAME}"]
    text = Path(file).read_text(errors="replace")
    words += [*arguments(text, store), f"--authfile={log_in(store, os.environ.pop(REGISTRIES, '{}'))}"]
    also = {**wanted(os.environ), "CONTAINERS_REGISTRIES_CONF": registries(store, text)}
    if code := store.call(*words, ".", also=also):
        raise SystemExit(code)
    shown = store.lines("image", "inspect", "--format={{json .Config}}\n{{json .HealthCheck}}", NAME)
    told, check = json.loads(shown[0]) or {}, json.loads(shown[1])
    about = {"port": exposed(told), "workdir": told.get("WorkingDir") or "", "check": container.healthcheck(check)}
    hand_over(store, slug, [] if new else known(slug.parent), about)
    bound(store, limit)


def arguments(text: str, store: container.Store) -> list[str]:
    """Further arguments for podman: the config vars that the Dockerfile asks for with ARG, by name; and a setting for
    apt, which otherwise becomes another user to download, and checks that it has."""
    asked = dict.fromkeys(re.findall(r"(?im)^[ \t]*ARG\s+([A-Za-z_][A-Za-z0-9_]*)", text))
    words = [f"--build-arg={name}" for name in asked if name in os.environ and not container.STEERS.fullmatch(name)]
    if re.search(r"\bapt(-get)?\b", text):
        told = Path(store.scratch, "apt.conf")
        told.write_text('APT::Sandbox::User "root";\n')
        told.chmod(0o644)
        words.append(f"--volume={told}:{APT}")
    return words


def log_in(store: container.Store, logins: str) -> Path:
    """Write podman's file of logins for registries (containers-auth.json(5)); no build step sees it."""
    auths = {host: {"auth": base64.b64encode(who.encode()).decode()} for host, who in json.loads(logins).items()}
    file = Path(store.scratch, "auth.json")
    file.touch(0o600)
    file.write_text(json.dumps({"auths": auths}))
    return file


def registries(store: container.Store, text: str) -> str:
    """Write podman's file about registries (containers-registries.conf(5)): a name without a registry means Docker Hub,
    as with docker."""
    near = "".join(f'[[registry]]\nlocation="{host}"\ninsecure=true\n' for host in sorted({*NEAR.findall(text)}))
    file = Path(store.scratch, "registries.conf")
    file.write_text(f'unqualified-search-registries=["docker.io"]\nshort-name-mode="disabled"\n{near}')
    return str(file)


def wanted(env: os._Environ[str]) -> dict[str, str]:
    """The variables of the builder that a build in a container may see: config vars, and proxies of the network."""
    return {
        key: value
        for key, value in env.items()
        if not container.STEERS.fullmatch(key) or key.lower().endswith("_proxy")
    }


def exposed(config: dict[str, Any]) -> int:
    """The lowest TCP port that an image says it listens on (EXPOSE), 0 for none."""
    found = [str(name).partition("/") for name in config.get("ExposedPorts") or {}]
    return min((int(port) for port, _, kind in found if port.isdecimal() and kind in ("", "tcp")), default=0)


def hand_over(store: container.Store, slug: Path, there: list[str], about: dict[str, Any]) -> None:
    """Write the image as an OCI layout, without the layers in `there`, which the app's store has. podman does not write
    a layer if an (empty) file of its name exists."""
    layout = slug / HANDED
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    for layer in there:
        (blobs / layer.removeprefix("sha256:")).touch()
    if code := store.call("push", "--quiet", "--compression-format=zstd", NAME, f"oci:{layout}:app", quiet=True):
        print("podman does not give the image away.", flush=True)
        raise SystemExit(code)
    for left in blobs.iterdir():
        if left.stat().st_size == 0:
            left.unlink()
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(blob(layout, index["manifests"][0]))
    config = json.loads(blob(layout, manifest["config"]))
    note(slug, {"id": manifest["config"]["digest"], "layers": config["rootfs"]["diff_ids"], **about})


def blob(layout: Path, descriptor: Any) -> bytes:
    return Path(layout, "blobs/sha256", str(descriptor["digest"]).removeprefix("sha256:")).read_bytes()


def known(slugs: Path) -> list[str]:
    """The layers that the app's store has: those of the images of the releases on the disk."""
    found: dict[str, None] = {}
    for one in noted(slugs):
        found |= dict.fromkeys(str(layer) for layer in one.get("layers", []))
    return [layer for layer in found if re.fullmatch("sha256:[0-9a-f]{64}", layer)]


def noted(slugs: Path) -> list[Any]:
    """The notes about images in the app's slugs (`note`)."""
    found = []
    for path in sorted(slugs.glob(f"v*/{container.STORED}")):
        # A slug may just be being removed.
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_bytes()))
    return found


def bound(store: container.Store, limit: int) -> None:
    """Empty the build's store if it is larger than `limit` bytes: the next build makes its layers again."""
    told = subprocess.run(["du", "-sx", "--block-size=1", "--", store.path], stdout=-1, stderr=-1, check=False).stdout
    size = int(told.split()[0]) if told else 0
    if size > limit:
        print(f"The layers of this app's builds had {size // 2**20} MiB, more than `cache` in the server's settings; they"
              " were removed.", flush=True)  # fmt: skip
        store.call("rmi", "--all", "--force", quiet=True)


def take(slug: Path) -> None:
    """Have the app's store take the image of the slug, if it lacks it."""
    app = slug.parents[1]
    store = opened(f"{app.parents[1]}/images/{app.name}")
    wanted = str(json.loads((slug / container.STORED).read_bytes())["id"])
    kept = stored(store)
    remove_unused(store, kept, slug.parent, wanted)
    if wanted in kept:
        return
    archive = app / "releases/images" / f"{wanted.removeprefix('sha256:')}.tar"
    built = slug / HANDED
    if not built.is_dir() and not archive.exists():
        print("The image is not stored any more. Send it again: docker save IMAGE | ssh HOST deploy APP -", flush=True)
        raise SystemExit(1)
    if code := store.call("load", "--quiet", "--input", str(built if built.is_dir() else archive), quiet=True):
        print("podman does not take the image. Once more from nothing: shipit deploy APP --fresh", flush=True)
        raise SystemExit(code)
    if wanted not in stored(store):
        print(f"podman found another image than {wanted}.", flush=True)
        raise SystemExit(1)


def give(slug: Path) -> None:
    """Write the image of the slug as an archive that has the same digest when it is sent again: docker's format for an
    image in docker's format, an OCI archive for others."""
    app = slug.parents[1]
    store = container.Store(f"{app.parents[1]}/images/{app.name}")
    image = str(json.loads((slug / container.STORED).read_bytes())["id"])
    # As when containers run: nothing is written where the images are.
    told = subprocess.run(
        store.argv("image", "inspect", "--format={{.ManifestType}}", image, run=True),
        env=store.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if told.returncode:
        raise SystemExit(told.returncode)
    # Uncompressed: ssh compresses if it is told to.
    form = ["docker-archive"] if b".docker." in told.stdout else ["oci-archive", "--uncompressed"]
    argv = store.argv("save", "--quiet", "--format", *form, image, run=True)
    # podman opens its output by its name, which is allowed only to the user who made it.
    with subprocess.Popen(argv, env=store.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        with open(1, "wb", closefd=False) as out:
            shutil.copyfileobj(child.stdout, out, 2**18)
    raise SystemExit(child.returncode)


def opened(path: str) -> container.Store:
    """The store. What podman noted of its last start is removed first: its directories, which are others each time, and
    its containers, of which there are none here. podman 4 keeps these notes in a directory, podman 5 in a database."""
    store = container.Store(path)
    shutil.rmtree(f"{store.path}/libpod", ignore_errors=True)
    for left in Path(store.path).glob("db.sql*"):
        left.unlink()
    return store


def stored(store: container.Store) -> set[str]:
    """The digests of the images that podman has."""
    lines = store.lines("images", "-aq", "--no-trunc")
    return {line if line.startswith("sha256:") else f"sha256:{line}" for line in lines}


def remove_unused(store: container.Store, kept: set[str], slugs: Path, wanted: str) -> None:
    """Remove the images that no release on the disk points at."""
    used = {wanted, *(str(one.get("id", "")) for one in noted(slugs))}
    for image in sorted(kept - used):
        store.call("rmi", "--force", image, quiet=True)


if __name__ == "__main__":
    main(sys.argv[1:])
