"""The app of the benchmark as packages that were built elsewhere: by `uv build`, `dpkg-deb`, `podman build`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .machine import Server
from .sample import Sample
from .ways import CONTAINERS, PODMAN

PROJECT = """\
[project]
name = "sample"
version = "{version}"
requires-python = ">=3.10"
dependencies = [{needs}]
[project.scripts]
sample = "app:main"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
py-modules = ["app"]
"""
# gunicorn listens on $PORT by itself.
MAIN = """

def main() -> None:
    import sys

    from gunicorn.app.wsgiapp import run

    sys.argv[1:] = ["--workers", "2", "app:app"]
    run()
"""
CONTROL = """\
Package: sample
Version: {version}
Architecture: amd64
Maintainer: A <a@example.org>
Depends: python3
Description: what is shipped
"""
START = '#!/bin/sh\ncd "$(dirname "$0")" && PYTHONPATH=. exec python3 -c "import app; app.main()"\n'
DOCKERFILE = """\
FROM localhost/base
WORKDIR /app
ENV PYTHONPATH=/app
COPY deps/ /app/
COPY app.py /app/
CMD ["python3", "-c", "import app; app.main()"]
"""
PLACE = "/mnt/plain/context"
UNIT = "[Service]\nExecStart=/usr/lib/sample/start\n"


def uv() -> str:
    beside = Path(sys.executable).parent
    return shutil.which("uv", path=str(beside)) or "uv"


@dataclass
class Packages:
    """Where they are made, and what they are called. `builder`: the machine that builds images."""

    out: Path
    builder: Server
    vendored: tuple[str, ...] = field(default=())

    @staticmethod
    def wheel(n: int) -> str:
        return f"sample-1.{n}-py3-none-any.whl"

    @staticmethod
    def deb(n: int) -> str:
        return f"sample_1.{n}_amd64.deb"

    @staticmethod
    def image(n: int) -> str:
        return f"sample-{n}.tar"

    def make(self, kind: str, sample: Sample) -> None:
        self.out.mkdir(exist_ok=True)
        {"wheel": self.make_wheel, "deb": self.make_deb, "image": self.make_image}[kind](sample)

    def make_wheel(self, sample: Sample) -> None:
        source = self.out / "source"
        source.mkdir(exist_ok=True)
        needs = ", ".join(f'"{one}"' for one in sample.requirements)
        (source / "pyproject.toml").write_text(PROJECT.format(version=f"1.{sample.code}", needs=needs))
        (source / "app.py").write_text((sample.where / "app.py").read_text() + MAIN)
        shutil.rmtree(source / "build", ignore_errors=True)
        run(uv(), "build", "--quiet", "--wheel", "--out-dir", str(self.out), str(source))

    def make_deb(self, sample: Sample) -> None:
        """With all that it needs inside, as nobody may install what the distribution does not have."""
        root = self.out / "root"
        place = root / "usr/lib/sample"
        self.vendor(sample, root, place)
        for name, text, mode in (
            ("DEBIAN/control", CONTROL.format(version=f"1.{sample.code}"), 0o644),
            ("usr/lib/systemd/system/sample.service", UNIT, 0o644),
            ("usr/lib/sample/start", START, 0o755),
            ("usr/lib/sample/app.py", (sample.where / "app.py").read_text() + MAIN, 0o644),
        ):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(self.out / self.deb(sample.code)))

    def vendor(self, sample: Sample, root: Path, place: Path) -> None:
        """What the app needs, as files, made again when it needs something else."""
        if self.vendored != sample.requirements:
            shutil.rmtree(root, ignore_errors=True)
            place.mkdir(parents=True)
            options = ("--quiet", "--target", str(place), "--python-version", "3.11", "--only-binary", ":all:")
            run(uv(), "pip", "install", *options, *sample.requirements)
            self.vendored = sample.requirements

    def make_image(self, sample: Sample) -> None:
        """On a base of Debian with its Python: a layer of what the app needs, and one of its code."""
        context = self.out / "context"
        self.vendor(sample, context, context / "deps")
        (context / "app.py").write_text((sample.where / "app.py").read_text() + MAIN)
        (context / "Dockerfile").write_text(DOCKERFILE)
        if not self.builder.exists("/usr/bin/podman"):
            self.prepare_builder()
        # Files with the same content and time are the same layer.
        run("find", str(context), "-exec", "touch", "-h", "-d", "2026-01-01", "{}", "+")
        self.builder.run("rm", "-rf", PLACE)
        self.builder.put(context, PLACE)
        tag = f"localhost/sample:{sample.code}"
        saved = self.builder.directory / "plain/saved.tar"
        script = f"podman build -q --isolation=chroot -t {tag} {PLACE} && podman save -q -o /mnt/plain/saved.tar {tag}"
        self.builder.sh(script, timeout=300)
        shutil.move(saved, self.out / self.image(sample.code))

    def prepare_builder(self) -> None:
        base = self.out / "base.tar"
        packages = "--include=python3-minimal,libpython3-stdlib"
        slim = "--dpkgopt=path-exclude=/usr/share/doc/*"
        run("mmdebstrap", "--quiet", "--variant=essential", packages, slim, "bookworm", str(base))
        self.builder.sh(CONTAINERS)
        self.builder.sh(PODMAN, timeout=300)
        shutil.move(base, self.builder.directory / "plain/base.tar")
        self.builder.sh("podman import -q /mnt/plain/base.tar localhost/base && rm /mnt/plain/base.tar", timeout=300)


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
