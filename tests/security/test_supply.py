"""What is installed is what was locked, what was locked is not known to be vulnerable, and a wheel is what was signed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
UV = Path(sys.executable).with_name("uv")
LOCKS = ("requirements.lock", "requirements-build.lock")


def run(*words: str | Path, cwd: Path = ROOT, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**os.environ, "UV": str(UV), **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def locked(name: str) -> dict[str, list[str]]:
    """Package → hashes, as a lock file has them."""
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE))
    return {entry.split("==")[0]: re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry) for entry in entries}


@pytest.mark.parametrize("name", LOCKS)
def test_every_dependency_is_locked_with_hashes(name: str) -> None:
    found = locked(name)
    assert len(found) > 4
    assert [package for package, hashes in found.items() if not hashes] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] if name == LOCKS[0] else project["build-system"]["requires"]
    assert {re.split(r"[<>=; ]", line)[0] for line in wanted} <= found.keys()


def test_install_sh_installs_nothing_without_its_hash() -> None:
    """By its words here; that uv obeys them is the next test."""
    text = (ROOT / "install.sh").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if re.search(r"pip install|\$\{install\[@\]\}", line)]
    installing = [line for line in lines if not line.startswith(("local install=", "printf", "#"))]
    assert len(installing) == 3, installing
    for line in installing:
        assert "--require-hashes --requirement" in line or "--no-deps --build-constraints" in line, line


def test_a_package_that_is_not_the_locked_one_is_not_installed(tmp_path: Path) -> None:
    """Neither a dependency nor what builds shipit itself."""
    run(UV, "venv", "--quiet", tmp_path / "venv")
    install = (UV, "pip", "install", "--quiet", "--python", tmp_path / "venv/bin/python")
    for name, words in (
        ("requirements.lock", ("--require-hashes", "--requirement")),
        ("requirements-build.lock", ("--no-deps", "--build-constraints")),
    ):
        other = tmp_path / name
        other.write_text(re.sub(r"sha256:[0-9a-f]{60}", "sha256:" + "0" * 60, (ROOT / name).read_text()))
        last = [ROOT] if name == LOCKS[1] else []
        refused = run(*install, *words, other, *last, check=False, UV_CACHE_DIR=str(tmp_path / "cache"))
        assert refused.returncode != 0, f"{name}: another package was installed"
        assert re.search(r"hash mismatch", refused.stderr, re.IGNORECASE), refused.stderr


def audited(report: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What pip-audit knows of the dependencies: those with an advisory, and those that nobody could be asked about."""
    vulnerable = [
        f"{found['name']} {found['version']}: {', '.join(v['id'] for v in found['vulns'])}"
        for found in report["dependencies"]
        if found.get("vulns")
    ]
    return vulnerable, [found["name"] for found in report["dependencies"] if "skip_reason" in found]


def test_an_advisory_and_an_unreachable_service_are_told_apart() -> None:
    report = {
        "dependencies": [
            {"name": "old", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]},
            {"name": "fine", "version": "1", "vulns": []},
            {"name": "unknown", "skip_reason": "Dependency not found on PyPI"},
        ]
    }
    assert audited(report) == (["old 1: PYSEC-1"], ["unknown"])


@pytest.mark.parametrize("name", LOCKS)
def test_no_locked_dependency_has_a_known_vulnerability(name: str) -> None:
    words = ("tool", "run", "--from", "pip-audit>=2.10,<3", "pip-audit", "--vulnerability-service", "pypi")
    options = (
        "--disable-pip",
        "--require-hashes",
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "--requirement",
        name,
    )
    done = run(UV, *words, *options, check=False)
    if not done.stdout.startswith("{"):
        unheard = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        unasked = [unheard[0][:300]]
    else:
        vulnerable, unasked = audited(json.loads(done.stdout))
        assert vulnerable == [], f"pip-audit knows of these: {vulnerable}"
    if unasked:
        told = f"NOT AUDITED: PyPI's advisories could not be asked about {name}: {', '.join(unasked)}"
        warnings.warn(told, stacklevel=1)
        pytest.skip(told)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit of the work tree as it is."""
    path = tmp_path_factory.mktemp("one") / "shipit"
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    run("git", "init", "-q", cwd=path)
    run("git", "add", "-A", cwd=path)
    identity = ("-c", "user.name=x", "-c", "user.email=x@x.test")
    run("git", *identity, "commit", "-q", "-m", "x", cwd=path, GIT_COMMITTER_DATE="2026-01-02T03:04:05Z")
    run(path / "tools/release", "build", cwd=path)
    return path


def test_a_wheel_has_the_same_bytes_wherever_and_whenever_it_is_built(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    before = os.umask(0o077)
    try:
        run("git", "clone", "-q", clone, other)
        for path in other.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
        (other / "receiver/left_behind.py").write_text("not committed\n")
        run(other / "tools/release", "build", cwd=tmp_path, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    finally:
        os.umask(before)
    ours, theirs = sorted((clone / "dist").glob("*.whl")), sorted((other / "dist").glob("*.whl"))
    assert [path.name for path in ours] == [path.name for path in theirs] and len(ours) == 1
    assert ours[0].read_bytes() == theirs[0].read_bytes()


def test_a_signed_wheel_is_told_from_a_changed_one_and_from_another_signers(clone: Path, tmp_path: Path) -> None:
    for name in ("maintainer", "stranger"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name)
    signers = tmp_path / "allowed_signers"
    public = " ".join((tmp_path / "maintainer.pub").read_text().split()[:2])
    signers.write_text(f'release@shipit namespaces="shipit-release" {public}\n')
    tool, dist = clone / "tools/release", clone / "dist"
    verify = (tool, "verify", dist, signers)
    assert run(*verify, check=False).returncode != 0, "unsigned"
    run(tool, "sign", tmp_path / "maintainer")
    assert ".whl: OK" in run(*verify).stdout
    wheel = next(dist.glob("*.whl"))
    good = wheel.read_bytes()
    wheel.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert run(*verify, check=False).returncode != 0, "a changed wheel"
    wheel.write_bytes(good)
    sums = (dist / "SHA256SUMS").read_text()
    (dist / "SHA256SUMS").write_text(sums + sums)
    assert run(*verify, check=False).returncode != 0, "changed sums"
    (dist / "SHA256SUMS").write_text(sums)
    assert run(*verify).returncode == 0
    run(tool, "sign", tmp_path / "stranger")
    assert run(*verify, check=False).returncode != 0, "another signer"
