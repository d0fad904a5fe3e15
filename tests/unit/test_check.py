from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver.cli.check import check
from receiver.cli.main import Context
from receiver.client.directory import Directory
from receiver.errors import NotFound, Rejected
from receiver.gate.keys import LOCAL_ADMIN

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def checked(*words: str) -> str:
    done = CliRunner().invoke(check, list(words), catch_exceptions=False, obj=Context(LOCAL_ADMIN))
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("example", ["hello", "fastapi-uv", "django"])
def test_every_example_would_be_accepted(example: str) -> None:
    assert "A push would be accepted." in checked(str(EXAMPLES / example))


def test_what_was_found_is_shown_for_people_and_for_programs(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: gunicorn app:app\nrelease: ./migrate\n")
    (tmp_path / "shipit.yml").write_text("processes: {web: {healthcheck: {path: /up, status: 200}, memory: 1G}}\n")
    text = checked(str(tmp_path))
    for part in (
        "web × 1: gunicorn app:app",
        "its socket ($SOCKET)",
        "GET /up answers 200",
        "memory 1024 MiB",
        "./migrate",
    ):
        assert part in text
    found = json.loads(checked(str(tmp_path), "--format", "json"))
    assert found["processes"][0]["listen"] == "socket" and found["release_command"] == "./migrate"


def test_what_a_push_would_refuse_is_refused_here(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web\n")
    with pytest.raises(Rejected, match="Procfile:1: ") as caught:
        checked(str(tmp_path))
    assert caught.value.exit_code == 2


def test_a_directory_that_is_not_there_is_told() -> None:
    with pytest.raises(NotFound):
        checked("/no/such/place")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, env=environment)
    (tmp_path / ".gitignore").write_text("uv.lock\n")
    for name in ("Procfile", "uv.lock", "app.py"):
        (tmp_path / name).write_text("web: x\n")
    subprocess.run(["git", "add", "app.py", ".gitignore"], cwd=tmp_path, check=True, env=environment)
    return tmp_path


def test_only_what_git_would_commit_is_looked_at(repository: Path) -> None:
    assert sorted(Directory(repository).files()) == [".gitignore", "Procfile", "app.py"]


def test_a_file_that_is_not_in_git_yet_is_told(repository: Path) -> None:
    assert "Procfile is not in git yet: git add Procfile" in checked(str(repository))


def test_outside_git_environments_and_caches_are_left_out_and_links_not_followed(tmp_path: Path) -> None:
    for path in ("env/pyvenv.cfg", "env/lib/x.py", "__pycache__/a.pyc", "pkg/a.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    (tmp_path / "big").write_bytes(b"x" * (2**20 + 1))
    tree = Directory(tmp_path)
    assert sorted(tree.files()) == ["big", "pkg/a.py"]
    assert tree.read("link.py") is None and tree.read("big") is None and tree.read("../x") is None


def test_what_nginx_will_serve_and_redirect_is_shown(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: ./serve --at $SOCKET\n")
    (tmp_path / "shipit.yml").write_text("static: {/assets: public/assets}\nproxy: {redirects: {/old: /new}}\n")
    text = checked(str(tmp_path))
    assert "nginx serves /assets from public/assets" in text and "/old → /new" in text
