"""What a package has written in a build is gone when the package is (decision 17): environments and the build cache."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
from host.apps import build, live, pushed, say
from lab.client import Client
from lab.host import Host

APPS = "/var/lib/shipit/apps"
INDEX = "/srv/index"
MARK = "STAYS"
# The build backend of a source distribution: anybody's code, run by an install.
BACKEND = """
import os, zipfile
from pathlib import Path

def build_wheel(directory, config_settings=None, metadata_directory=None):
    for packages in Path(os.environ["UV_PROJECT_ENVIRONMENT"]).glob("lib/*/site-packages"):
        (packages / "stays.pth").write_text("# STAYS\\n")
    Path(os.environ["UV_CACHE_DIR"], "stays.pth").write_text("# STAYS\\n")
    for known in Path(os.environ["UV_CACHE_DIR"]).rglob("tiny.py"):
        known.write_text("VERSION = 'STAYS'\\n")
    name = "evil-1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory, name), "w") as wheel:
        wheel.writestr("evil.py", "")
        wheel.writestr("evil-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: evil\\nVersion: 1.0\\n")
        wheel.writestr("evil-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("evil-1.0.dist-info/RECORD", "evil.py,,\\n")
    return name
"""


def wheel(name: str) -> bytes:
    info = f"{name}-1.0.dist-info"
    inside = {
        f"{name}.py": "VERSION = '1.0'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
               for path, text in inside.items()}  # fmt: skip
    record = "".join(f"{path},sha256={digests[path]},{len(text)}\n" for path, text in inside.items())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in {**inside, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return out.getvalue()


def evil() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        about = '[project]\nname = "evil"\nversion = "1.0"\n'
        for name, text in {
            "pyproject.toml": project + about, "backend.py": BACKEND,
            "PKG-INFO": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
        }.items():  # fmt: skip
            entry = tarfile.TarInfo(f"evil-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture(scope="module")
def index(shared_host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A package index on the machine; all builds use it."""
    for name, data in {
        "tiny/tiny-1.0-py3-none-any.whl": wheel("tiny"), "other/other-1.0-py3-none-any.whl": wheel("other"),
        "evil/evil-1.0.tar.gz": evil(),
    }.items():  # fmt: skip
        local = tmp_path_factory.mktemp("index") / Path(name).name
        local.write_bytes(data)
        shared_host.sh(f"mkdir -p {INDEX}/{Path(name).parent}")
        shared_host.put(local, f"{INDEX}/{name}")
        shared_host.write(f"{INDEX}/{Path(name).parent}/index.html", f'<a href="{local.name}">{local.name}</a>\n')
    settings = "/etc/shipit/shipit.yml"
    kept = [line for line in shared_host.read(settings).splitlines() if not line.startswith(("build_env", "  "))]
    kept += ["build_environment:", f'  UV_DEFAULT_INDEX: "file://{INDEX}"', '  UV_PYTHON_DOWNLOADS: "never"', ""]
    shared_host.write(settings, "\n".join(kept))


def poisoned(host: Host, where: str) -> list[str]:
    return host.sh(f"grep -rls --include=*.pth --include=tiny.py {MARK} {where}", check=False).out.split()


@pytest.mark.host
@pytest.mark.usefixtures("index")
def test_what_a_package_has_written_is_gone_when_the_package_is(shared_host: Host, laptop: Client) -> None:
    slugs, cache = f"{APPS}/victim/slugs", f"{APPS}/victim/cache"
    repo = pushed(laptop, "victim", "one", **{"requirements.txt": "tiny\n"})
    repo.commit({"requirements.txt": "tiny\nevil\n"})
    repo.push(check=True)
    assert poisoned(shared_host, f"{slugs}/v2/.venv") and poisoned(shared_host, cache), "the attack must work at all"
    repo.commit({"requirements.txt": "tiny\nother\n"})
    said = repo.push(check=True).err
    assert live(laptop, "victim") == "v3"
    assert poisoned(shared_host, f"{slugs}/v3/.venv") == [] and poisoned(shared_host, cache) == []
    assert shared_host.sh(f"cat {slugs}/v3/.venv/lib/python3*/site-packages/tiny.py").out == "VERSION = '1.0'\n"
    assert "build cache is empty: packages have changed or left" in said


@pytest.mark.host
@pytest.mark.usefixtures("index")
def test_a_failed_build_hands_on_as_little_and_fresh_is_fresh(shared_host: Host, laptop: Client) -> None:
    slugs, cache = f"{APPS}/tried/slugs", f"{APPS}/tried/cache"
    repo = pushed(laptop, "tried", "one", **{"requirements.txt": "tiny\n"})
    repo.commit({"requirements.txt": "tiny\nevil\nnowhere-to-be-found\n"})
    assert not repo.push().ok
    repo.commit({"requirements.txt": "tiny\nevil\n", "shipit.yml": build("exit 3")})
    assert not repo.push().ok and poisoned(shared_host, cache)
    # The same requirements as before: the environment of v1, which nobody could write to, and an empty cache.
    repo.commit({"requirements.txt": "tiny\n", "shipit.yml": ""})
    repo.push(check=True)
    assert poisoned(shared_host, cache) == [] and poisoned(shared_host, slugs) == []
    shared_host.sh(f"runuser -u build-tried -- sh -c 'echo \"# {MARK}\" > {cache}/left.pth'")
    assert say(laptop, "deploy", "tried", "--fresh").code == 0
    assert poisoned(shared_host, cache) == []
    shared_host.sh(f"runuser -u build-tried -- sh -c 'echo \"# {MARK}\" > {cache}/left.pth'")
    assert say(laptop, "builds:cache-clear", "tried").code == 0
    assert shared_host.sh(f"ls -A {cache}").out == ""
    repo.commit({"mark": "two\n"})
    repo.push(check=True)


@pytest.mark.host
@pytest.mark.usefixtures("index")
def test_a_build_command_that_writes_into_the_environment_works_every_time(shared_host: Host, laptop: Client) -> None:
    writes = build("echo here > .venv/written")
    repo = pushed(laptop, "writer", "one", **{"requirements.txt": "tiny\n", "shipit_yml": writes})
    for mark in ("two", "three"):
        repo.commit({"mark": f"{mark}\n"})
        assert "Read-only file system" not in repo.push(check=True).err
    # One that begins to write when the environment is there already.
    late = pushed(laptop, "late", "one", **{"requirements.txt": "tiny\n", "shipit_yml": build("true")})
    late.commit({"mark": "linked\n"})
    late.push(check=True)
    late.commit({"shipit.yml": writes})
    late.push(check=True)
    late.commit({"mark": "again\n"})
    late.push(check=True)
    written = shared_host.sh(
        textwrap.dedent(f"""
        cd {APPS}; for slug in writer/slugs/v1 writer/slugs/v2 writer/slugs/v3 late/slugs/v3 late/slugs/v4
        do cat $slug/.venv/written; done; test -L late/slugs/v2/.venv; test ! -e late/slugs/v1/.venv/written""")
    )
    assert written.out == "here\n" * 5
