"""What every runtime promises before anything is built. A runtime without a sample fails here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from contract.runtimes.samples import SAMPLES, Sample
from contract.runtimes.toy import Toy
from receiver.errors import Rejected
from receiver.manifest import Manifest
from receiver.model import ProcessEnv
from receiver.runtimes.all import RUNTIMES
from receiver.runtimes.base import BuildPlan
from receiver.runtimes.build import build_plan
from receiver.runtimes.disk import Disk
from receiver.runtimes.image import Dockerfile, Image
from receiver.runtimes.plain import Plain
from receiver.runtimes.read import read_manifest
from receiver.settings import Settings

WITH_TOY = (Toy(), *RUNTIMES)
SLUG = Path("/var/lib/shipit/apps/blog/slugs/v8")
each = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


class Tree:
    """A tree of a few files."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self._files = files

    def files(self) -> Mapping[str, str]:
        return {path: hashlib.sha1(_bytes(text)).hexdigest() for path, text in self._files.items()}

    def links(self) -> Mapping[str, str]:
        return {}

    def read(self, path: str) -> bytes | None:
        return _bytes(self._files[path]) if path in self._files else None


def read(files: Mapping[str, str | bytes]) -> Manifest:
    return read_manifest(Tree(files), runtimes=WITH_TOY)


def planned(files: Mapping[str, str | bytes]) -> tuple[BuildPlan, ProcessEnv]:
    return build_plan(
        read(files), Tree(files), slug=SLUG, cache=SLUG.parents[1] / "cache", tools=Path("/tools"),
        settings=Settings(), runtimes=WITH_TOY,
    )  # fmt: skip


def keys(files: Mapping[str, str | bytes]) -> dict[str, str]:
    return {made.name: made.key for made in planned(files)[0].made}


def test_each_runtime_has_a_sample() -> None:
    # An image and a disk are no trees of files, and a Dockerfile needs podman: tests of their own push them.
    assert {one.name for one in RUNTIMES if not isinstance(one, (Plain, Image, Dockerfile, Disk))} <= set(SAMPLES)
    assert len({runtime.name for runtime in WITH_TOY}) == len(WITH_TOY)


@each
def test_it_says_by_what_it_found_the_project_and_how_it_is_started(sample: Sample) -> None:
    manifest = read(sample.files)
    assert manifest.runtimes == ((sample.runtime.name, sample.evidence),)
    assert (manifest.static or manifest.processes[0].command) and any(
        "No Procfile" in told for told in manifest.notices
    )


@each
def test_nothing_is_made_again_when_code_alone_changes(sample: Sample) -> None:
    changed = keys({**sample.files, "README.md": "new", "mark": "two"})
    assert changed == keys(sample.files) and all(changed.values())


@each
def test_what_decides_makes_other_directories_and_each_is_known_by_its_own_key(sample: Sample) -> None:
    assert not sample.other or keys({**sample.files, **sample.other}) != keys(sample.files)


@each
def test_a_wrong_version_is_named_with_how_to_get_a_right_one(sample: Sample) -> None:
    if sample.wrong:
        with pytest.raises(Rejected) as caught:
            read({**sample.files, **sample.wrong})
        assert sample.told in caught.value.message and sample.hint in caught.value.hint


@each
def test_what_the_build_makes_cannot_be_in_the_commit(sample: Sample) -> None:
    for name in sample.runtime.makes:
        with pytest.raises(Rejected, match="made by the build"):
            read({**sample.files, f"{name}/x": ""})


@each
def test_what_is_made_is_among_the_names_that_it_said(sample: Sample) -> None:
    plan, process = planned(sample.files)
    assert {made.name for made in plan.made} <= set(sample.runtime.makes)
    assert all(made.copier or not made.seed_key for made in plan.made)
    assert all(f"{SLUG}/{directory}" in plan.environment["PATH"] for directory in process.path)


def test_two_runtimes_in_one_project_are_one_build() -> None:
    both = {**SAMPLES["node"].files, **SAMPLES["python"].files, "Procfile": "web: gunicorn app:app\n"}
    plan, process = planned(both)
    assert plan.runtime == "python + node 22"
    assert {made.name for made in plan.made} == {".venv", ".node", "node_modules"}
    assert process.path == (".venv/bin", ".node/bin", "node_modules/.bin")
    changed = keys({**both, **SAMPLES["python"].other})
    assert changed[".venv"] != keys(both)[".venv"] and changed["node_modules"] == keys(both)["node_modules"]


def test_a_package_json_beside_another_language_that_only_formats_installs_nothing() -> None:
    files = {**SAMPLES["python"].files, "package.json": '{"devDependencies": {"prettier": "3"}}'}
    assert [name for name, _ in read(files).runtimes] == ["python"]
