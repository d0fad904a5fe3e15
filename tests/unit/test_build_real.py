"""The planned steps, run for real by uv, with a package index that is a directory: nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
import uv

from receiver.client.directory import Directory
from receiver.inside import builder
from receiver.runtimes.build import adding, build_plan
from receiver.runtimes.python.copied import finish
from receiver.runtimes.python.lock.poetry import content_hash
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings
from receiver.story.inherit import may_inherit
from receiver.story.reuse import encode_steps

ROOT = Path(__file__).resolve().parent.parent.parent


def wheel(folder: Path, name: str, version: str, requires: str = "", script: str = "") -> str:
    """Add a wheel of one module that knows its version, and of a program that prints it, to an index (PEP 503); returns its hash as lock files write it."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n\ndef main():\n    print(VERSION)\n",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script} = {name}:main\n"
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    page = folder / name / "index.html"
    page.parent.mkdir(exist_ok=True)
    path = page.parent / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    with page.open("a") as html:
        html.write(f'<a href="{path.name}">{path.name}</a>\n')
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


class Workshop:
    """One app being built: `index` holds tiny 1.0 and 2.0; `build` runs the steps as the builder does."""

    def __init__(self, home: Path) -> None:
        self.slug, self.cache, self.index = home / "slug", home / "cache", home / "index"
        for folder in (self.slug, self.cache, self.index, home / "bin"):
            folder.mkdir()
        self.hashes = {version: wheel(self.index, "tiny", version) for version in ("1.0", "2.0")}
        self.uv = home / "bin/uv"
        self.uv.symlink_to(uv.find_uv_bin())
        # Stands for the installation's Python, which has shipit in it and is started with -I.
        python = home / "bin/python"
        python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
        python.chmod(0o755)

    def build(self, files: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        for name, text in {"Procfile": "web: x\n", **files}.items():
            (self.slug / name).write_text(text)
        tree = Directory(self.slug)
        plan, _ = build_plan(
            read_manifest(tree), tree, slug=self.slug, cache=self.cache, tools=self.uv.parent, settings=Settings()
        )
        config = {"UV_DEFAULT_INDEX": self.index.as_uri(), "UV_PYTHON_DOWNLOADS": "never"}
        for step in (*(step for made in plan.made for step in made.steps), *plan.steps):
            done = subprocess.run(
                step.argv,
                cwd=self.slug,
                env={"HOME": str(self.cache), **plan.environment, **config},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                break
        return done

    def next_release(self) -> Path:
        """From here on another slug is built; returns the environment of the one before."""
        before, self.slug = self.slug, self.slug.with_name(self.slug.name + "x")
        self.slug.mkdir()
        return before / ".venv"

    def build_from(
        self, seed: Path, files: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, before: Collection[str] = ()
    ) -> int:
        """As the builder does it with a copy of another release's environment, for which `before` was required;
        returns the exit code."""
        for name, text in {"Procfile": "web: x\n", **files}.items():
            (self.slug / name).write_text(text)
        tree = Directory(self.slug)
        plan, _ = build_plan(
            read_manifest(tree), tree, slug=self.slug, cache=self.cache, tools=self.uv.parent, settings=Settings()
        )
        config = {"UV_DEFAULT_INDEX": self.index.as_uri(), "UV_PYTHON_DOWNLOADS": "never"}
        monkeypatch.chdir(self.slug)
        (made,) = plan.made
        known = {
            "name": made.name, "link": "", "seed": str(seed), "copier": made.copier,
            "adding": encode_steps(adding(made, before)), "seeded": encode_steps(made.seeded),
            "steps": encode_steps(made.steps),
        }  # fmt: skip
        return builder.make_directory(known, {"HOME": str(self.cache), **plan.environment, **config})

    def says(self, code: str) -> str:
        python = self.slug / ".venv/bin/python"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


VERSION = "import tiny; print(tiny.VERSION)"


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def pipfile_lock(pipfile_hash: str, version: str, hashes: list[str]) -> str:
    meta = {"hash": {"sha256": pipfile_hash}, "pipfile-spec": 6, "requires": {}, "sources": []}
    return json.dumps(
        {"_meta": meta, "default": {"tiny": {"hashes": hashes, "version": f"=={version}"}}, "develop": {}}
    )


PIPFILE = '[packages]\ntiny = "*"\n'
PIPFILE_HASH = hashlib.sha256(b'{"_meta":{"requires":{},"sources":[]},"default":{"tiny":"*"},"develop":{}}').hexdigest()


def test_requirements_are_installed_as_pinned(shop: Workshop) -> None:
    assert shop.build({"requirements.txt": "tiny==1.0\n"}).returncode == 0
    assert shop.says(VERSION) == "1.0"


def test_a_service_needs_to_compile_nothing(shop: Workshop) -> None:
    shop.build({"requirements.txt": "tiny\n"})
    assert list(shop.slug.glob(".venv/lib/python3*/site-packages/__pycache__/tiny.*.pyc"))


def test_no_file_of_the_environment_is_shared_with_the_cache(shop: Workshop) -> None:
    assert shop.build({"requirements.txt": "tiny\n"}).returncode == 0
    files = [path for path in shop.slug.rglob(".venv/**/*") if path.is_file() and not path.is_symlink()]
    assert files and all(path.stat().st_nlink == 1 for path in files)


def test_hashes_are_obeyed_and_demanded_of_all_when_one_has_one(shop: Workshop) -> None:
    wheel(shop.index, "other", "1.0")
    assert shop.build({"requirements.txt": f"tiny==1.0 --hash={shop.hashes['1.0']}\n"}).returncode == 0
    (shop.slug / ".venv").rename(shop.slug.parent / "old")
    assert shop.build({"requirements.txt": f"tiny==1.0 --hash={shop.hashes['2.0']}\n"}).returncode != 0
    (shop.slug / ".venv").rename(shop.slug.parent / "older")
    assert shop.build({"requirements.txt": f"tiny==1.0 --hash={shop.hashes['1.0']}\nother==1.0\n"}).returncode != 0


def test_uv_lock_is_installed_as_it_is_and_refused_when_it_is_not_the_projects(shop: Workshop) -> None:
    project = '[project]\nname = "blog"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["tiny<2"]\n'
    (shop.slug / "pyproject.toml").write_text(project)
    locking = {
        "PATH": os.environ["PATH"],
        "HOME": str(shop.cache),
        "UV_DEFAULT_INDEX": shop.index.as_uri(),
    }
    subprocess.run([shop.uv, "lock", "-q"], cwd=shop.slug, env=locking, check=True)
    lock = (shop.slug / "uv.lock").read_text()
    assert shop.build({"pyproject.toml": project, "uv.lock": lock}).returncode == 0
    assert shop.says(VERSION) == "1.0"
    done = shop.build({"pyproject.toml": project.replace("<2", ">=2"), "uv.lock": lock})
    assert done.returncode != 0 and "uv lock" in done.stderr


def test_pipfile_lock_is_installed_with_its_hashes(shop: Workshop) -> None:
    files = {"Pipfile": PIPFILE, "Pipfile.lock": pipfile_lock(PIPFILE_HASH, "1.0", [shop.hashes["1.0"]])}
    assert shop.build(files).returncode == 0
    assert shop.says(VERSION) == "1.0"
    (shop.slug / ".venv").rename(shop.slug.parent / "old")
    files["Pipfile.lock"] = pipfile_lock(PIPFILE_HASH, "1.0", [shop.hashes["2.0"]])
    assert "hash" in shop.build(files).stderr.lower()


@pytest.mark.parametrize(
    "wanted", [f'{PIPFILE}other = "*"\n', '[packages]\ntiny = "==2.0"\n', '[packages]\ntiny = {git = "x"}\n']
)
def test_a_pipfile_lock_of_another_pipfile_is_refused(shop: Workshop, wanted: str) -> None:
    lock = pipfile_lock("0" * 64, "1.0", [shop.hashes["1.0"]])
    done = shop.build({"Pipfile": wanted, "Pipfile.lock": lock})
    assert done.returncode == 2 and "pipenv lock" in done.stderr


def test_a_pipfile_that_changed_for_development_alone_changes_no_release(shop: Workshop) -> None:
    lock = pipfile_lock(PIPFILE_HASH, "1.0", [shop.hashes["1.0"]])
    done = shop.build({"Pipfile": f'{PIPFILE}[dev-packages]\npytest = "*"\n', "Pipfile.lock": lock})
    assert done.returncode == 0 and shop.says(VERSION) == "1.0"


def poetry_lock(shop: Workshop, project: Mapping[str, object], version: str = "1.0") -> str:
    return f"""
[[package]]
name = "tiny"
version = "{version}"
optional = false
groups = ["main"]
files = [{{file = "tiny-{version}-py3-none-any.whl", hash = "{shop.hashes[version]}"}}]
[[package]]
name = "absent"
version = "1"
optional = false
groups = ["dev"]
files = []
[[package]]
name = "elsewhere"
version = "1"
optional = false
groups = ["main"]
markers = "python_version < \\"3.0\\""
files = [{{file = "elsewhere-1.whl", hash = "sha256:{"0" * 64}"}}]
[metadata]
lock-version = "2.1"
content-hash = "{content_hash(project, groups=True)}"
"""


POETRY = '[tool.poetry]\nname = "blog"\n[tool.poetry.dependencies]\npython = "^3.10"\ntiny = "*"\n'
POETRY_DATA = {"tool": {"poetry": {"name": "blog", "dependencies": {"python": "^3.10", "tiny": "*"}}}}


def test_poetry_lock_is_installed_without_its_development_packages(shop: Workshop) -> None:
    done = shop.build({"pyproject.toml": POETRY, "poetry.lock": poetry_lock(shop, POETRY_DATA)})
    assert done.returncode == 0, done.stderr
    assert shop.says(VERSION) == "1.0"


def test_a_poetry_lock_of_another_pyproject_is_refused(shop: Workshop) -> None:
    files = {
        "pyproject.toml": POETRY.replace('tiny = "*"', 'tiny = ">=2"'),
        "poetry.lock": poetry_lock(shop, POETRY_DATA),
    }
    done = shop.build(files)
    assert done.returncode == 2 and "poetry lock" in done.stderr


def test_a_broken_lock_file_is_told_and_no_traceback(shop: Workshop) -> None:
    done = shop.build({"Pipfile": PIPFILE, "Pipfile.lock": '{"_meta": {"sources": [{}]}, "default": {}}'})
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_python_that_is_not_there_fails_and_says_which_are(shop: Workshop) -> None:
    done = shop.build({"requirements.txt": "", ".python-version": "3.99\n"})
    assert done.returncode != 0
    assert "3.99" in done.stderr and "Python on this server:" in done.stderr and "/python3" in done.stderr + done.stdout


def test_the_build_command_runs_last_with_the_environment_on_its_path(shop: Workshop) -> None:
    files = {"requirements.txt": "tiny==2.0\n", "shipit.yml": f"build:\n  command: python -c '{VERSION}' > version\n"}
    assert shop.build(files).returncode == 0
    assert (shop.slug / "version").read_text() == "2.0\n"


WITH_SCRIPT = {"requirements.txt": "tiny==1.0\nscripted\n"}


def scripted(shop: Workshop) -> None:
    """A second package, with a program."""
    wheel(shop.index, "scripted", "1.0", script="scripted")


def test_a_changed_lock_starts_from_a_copy_and_ends_as_if_from_nothing(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scripted(shop)
    assert shop.build(WITH_SCRIPT).returncode == 0
    kept = (shop.slug / ".venv/bin/scripted").read_bytes()
    seed = shop.next_release()
    assert shop.build_from(seed, {"requirements.txt": "tiny==2.0\nscripted\n"}, monkeypatch) == 0
    assert "from nothing" not in capfd.readouterr().out
    assert shop.says(VERSION) == "2.0"
    assert subprocess.run([shop.slug / ".venv/bin/scripted"], capture_output=True, text=True).stdout.strip() == "1.0"
    for path in (shop.slug / ".venv/bin").iterdir():
        assert path.is_symlink() or str(seed).encode() not in path.read_bytes(), path
    assert (seed / "bin/scripted").read_bytes() == kept, "the older release is as it was"
    assert compiled(shop) == {"tiny", "scripted"}
    seed = shop.next_release()
    assert shop.build_from(seed, {"requirements.txt": "tiny==2.0\n"}, monkeypatch) == 0
    left = list((shop.slug / ".venv").rglob("scripted*"))
    assert left == [], "what is not wanted any more is gone"


def test_an_added_line_asks_for_nothing_that_is_there(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shop.build({"requirements.txt": "tiny==1.0\n"}).returncode == 0
    scripted(shop)
    shutil.rmtree(shop.index / "tiny")
    shutil.rmtree(shop.cache)
    seed = shop.next_release()
    files = {"requirements.txt": "tiny==1.0\nscripted\n"}
    assert shop.build_from(seed, files, monkeypatch, ["tiny==1.0"]) == 0
    assert "from nothing" not in capfd.readouterr().out
    assert shop.says(VERSION) == "1.0"
    assert subprocess.run([shop.slug / ".venv/bin/scripted"], capture_output=True, text=True).stdout.strip() == "1.0"
    assert compiled(shop) == {"tiny", "scripted"}


def compiled(shop: Workshop) -> set[str]:
    """The modules without a package that no start of the app has to compile."""
    return {path.name.split(".")[0] for path in (shop.slug / ".venv").rglob("site-packages/__pycache__/*.pyc")}


def test_bytecode_is_copied_for_the_very_same_module_only(tmp_path: Path) -> None:
    for home in ("old", "new"):
        packages = tmp_path / home / "lib/python3.11/site-packages"
        packages.mkdir(parents=True)
        for name, nanosecond in (("same", 0), ("other", 0 if home == "old" else 1)):
            (packages / f"{name}.py").write_text("1 + 1\n")
            os.utime(packages / f"{name}.py", ns=(0, 10**18 + nanosecond))
    cache = tmp_path / "old/lib/python3.11/site-packages/__pycache__"
    cache.mkdir()
    for name in ("same", "other", "gone"):
        (cache / f"{name}.cpython-311.pyc").write_bytes(b"code")
    finish(str(tmp_path / "old"), str(tmp_path / "new"))
    assert [path.name for path in (tmp_path / "new").rglob("*.pyc")] == ["same.cpython-311.pyc"]


def test_an_added_line_that_changes_another_package_leaves_nothing_behind(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scripted(shop)
    wheel(shop.index, "tiny", "0.5", requires="scripted")
    wheel(shop.index, "modern", "1.0", requires="tiny>=2")
    # What is there fits, so it stays, as with pip.
    assert shop.build({"requirements.txt": "tiny==0.5\n"}).returncode == 0
    assert list((shop.slug / ".venv").rglob("scripted*"))
    seed = shop.next_release()
    assert shop.build_from(seed, {"requirements.txt": "tiny\nmodern\n"}, monkeypatch, ["tiny"]) == 0
    assert "once more for all" in capfd.readouterr().out
    assert shop.says(VERSION) == "2.0"
    assert not list((shop.slug / ".venv").rglob("scripted*")), "only the old tiny needed it"


def test_an_added_line_that_cannot_be_installed_fails_the_build(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shop.build({"requirements.txt": "tiny==1.0\n"}).returncode == 0
    seed = shop.next_release()
    files = {"requirements.txt": "tiny==1.0\nunheard-of\n"}
    assert shop.build_from(seed, files, monkeypatch, ["tiny==1.0"]) != 0
    assert "Again, from nothing" in capfd.readouterr().out


def test_no_file_of_a_copied_environment_is_shared_with_the_older_release(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.build({"requirements.txt": "tiny==1.0\n"})
    seed = shop.next_release()
    assert shop.build_from(seed, {"requirements.txt": "tiny==1.0\n"}, monkeypatch) == 0
    files = [path for path in (shop.slug / ".venv").rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10 and all(path.stat().st_nlink == 1 for path in files)
    assert not any(path.stat().st_mode & 0o7000 for path in files)


@pytest.mark.parametrize("damage", ["an interpreter of its own", "another Python", "gone"])
def test_what_cannot_start_from_a_copy_is_made_of_nothing(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    shop.build({"requirements.txt": "tiny==1.0\n"})
    seed = shop.next_release()
    if damage == "an interpreter of its own":
        (seed / "lib/own").symlink_to(seed.parent / ".python/bin/python3")
    elif damage == "another Python":
        next((seed / "lib").iterdir()).rename(seed / "lib/python2.7")
    else:
        shutil.rmtree(seed)
    assert shop.build_from(seed, {"requirements.txt": "tiny==2.0\n"}, monkeypatch) == 0
    assert "Again, from nothing" in capfd.readouterr().out
    assert shop.says(VERSION) == "2.0"
    assert not (shop.slug / ".venv/lib/own").is_symlink()


def test_a_lock_that_cannot_be_installed_fails_from_a_copy_too(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.build({"requirements.txt": "tiny==1.0\n"})
    assert shop.build_from(shop.next_release(), {"requirements.txt": "tiny==9.9\n"}, monkeypatch) != 0


def packed(shop: Workshop, version: str, requires: str) -> None:
    """What a release is of to which this wheel was sent: the file, and beside it what it says."""
    wheel(shop.index, "served", version, requires, script="served")
    name = f"served-{version}-py3-none-any.whl"
    content = (shop.index / "served" / name).read_bytes()
    (shop.slug / name).write_bytes(content)
    told = shop.slug / ".package" / name / "METADATA"
    told.parent.mkdir(parents=True)
    told.write_bytes(zipfile.ZipFile(shop.slug / name).read(f"served-{version}.dist-info/METADATA"))


def test_another_version_of_a_wheel_that_asks_for_the_same_asks_nobody(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    packed(shop, "1.0", "tiny<2")
    assert shop.build({}).returncode == 0
    assert shop.says(VERSION) == "1.0"
    away = shop.index.rename(shop.index.with_name("away"))
    shutil.rmtree(shop.cache)
    seed = shop.next_release()
    shop.index.mkdir()
    packed(shop, "1.1", "tiny<2")
    shutil.rmtree(shop.index)
    assert shop.build_from(seed, {}, monkeypatch) == 0
    assert "from nothing" not in capfd.readouterr().out
    assert (shop.says(VERSION), shop.says("import served; print(served.VERSION)")) == ("1.0", "1.1")
    # What asks for something else is resolved as ever.
    seed = shop.next_release()
    away.rename(shop.index)
    packed(shop, "1.2", "tiny>=2")
    assert shop.build_from(seed, {}, monkeypatch) == 0
    assert (shop.says(VERSION), shop.says("import served; print(served.VERSION)")) == ("2.0", "1.2")


def test_another_version_of_a_wheel_that_asks_for_more_asks_for_that_alone(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    packed(shop, "1.0", "tiny<2")
    assert shop.build({}).returncode == 0
    wheel(shop.index, "other", "1.0")
    away = (shop.index / "tiny").rename(shop.index.with_name("away"))
    shutil.rmtree(shop.cache)
    seed = shop.next_release()
    packed(shop, "1.1", 'tiny<2\nRequires-Dist: other; python_version>"3"\nRequires-Dist: unheard-of; extra=="x"')
    assert shop.build_from(seed, {}, monkeypatch) == 0
    assert "from nothing" not in capfd.readouterr().out
    assert (shop.says(VERSION), shop.says("import served, other; print(served.VERSION)")) == ("1.0", "1.1")
    # When what it adds needs another version of what is there, all of it is resolved.
    away.rename(shop.index / "tiny")
    wheel(shop.index, "modern", "1.0", requires="tiny>1")
    wheel(shop.index, "tiny", "1.5")
    seed = shop.next_release()
    packed(shop, "1.2", "tiny<2\nRequires-Dist: modern")
    assert shop.build_from(seed, {}, monkeypatch) == 0
    assert (shop.says(VERSION), shop.says("import served, modern; print(served.VERSION)")) == ("1.5", "1.2")
    assert not list((shop.slug / ".venv").rglob("other*")), "this version does not ask for it"


def required(shop: Workshop, version: str, requires: str) -> tuple[str, ...]:
    packed(shop, version, requires)
    (shop.slug / "Procfile").write_text("web: served\n")
    tree = Directory(shop.slug)
    plan, _ = build_plan(
        read_manifest(tree), tree, slug=shop.slug, cache=shop.cache, tools=shop.uv.parent, settings=Settings()
    )
    shop.next_release()
    return plan.made[0].requires


def test_another_version_of_a_wheel_is_the_same_app_and_another_wheel_or_one_that_asks_for_less_is_not(
    shop: Workshop,
) -> None:
    first = required(shop, "1.0", "tiny<2\nRequires-Dist: other")
    assert may_inherit(first, required(shop, "1.1", "tiny<2\nRequires-Dist: other"))
    assert may_inherit(first, required(shop, "1.2", "other\nRequires-Dist: tiny<2\nRequires-Dist: third"))
    assert not may_inherit(first, required(shop, "1.3", "tiny<2")), "other has left"
    assert not may_inherit(first, required(shop, "1.4", "tiny<3\nRequires-Dist: other")), "tiny may have changed"
    bare = required(shop, "1.5", "")
    assert may_inherit(bare, first) and "served" in bare[0]
