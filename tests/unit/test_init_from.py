"""`init --from`: what other receivers' manifests become, read back by the code that a push is read with."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import FakeTree

from receiver.cli.init_from import convert
from receiver.cli.main import run
from receiver.errors import Rejected
from receiver.gate.keys import LOCAL_ADMIN
from receiver.manifest import Manifest
from receiver.runtimes.read import read_manifest

SAILOR = """\
apps:
  - name: shop.example.org
    runtime: python
    runtime_version: 3.10
    static_paths: ["/assets:public/assets"]
    ssl: true
    env: {LEVEL: 3, DEBUG: false}
    scripts: {release: ["python manage.py migrate"], predeploy: ["make pages"], postdeploy: ["curl x"]}
    process:
      web: {cmd: "shop.wsgi:application", server_name: "shop.example.org www.example.org", workers: 2}
      worker: {cmd: "celery -A shop worker", workers: 3}
      mail: python -m mail
      cron: ["30 3 * * * python nightly.py"]
"""
KAMAL = """\
service: shop
image: me/shop
servers:
  web: {hosts: [10.0.0.1, 10.0.0.2], cmd: bin/rails server -p $PORT}
  job: {hosts: [10.0.0.1], cmd: bin/jobs}
proxy: {ssl: true, host: shop.example.org, app_port: 3000, healthcheck: {path: /up}, response_timeout: 90}
env: {clear: {LEVEL: info}, secret: [RAILS_MASTER_KEY, "DB_PASSWORD:SHOP_DB"]}
volumes: ["shop_storage:/rails/storage"]
drain_timeout: 20
accessories: {db: {image: "postgres:16"}}
"""
APP_JSON = """\
{"formation": {"web": {"quantity": 2}}, "env": {"LEVEL": "low", "KEY": {"required": true}},
 "scripts": {"dokku": {"predeploy": "make"}, "postdeploy": "x"},
 "healthchecks": {"web": [{"type": "startup", "path": "/up", "content": "ok"}]},
 "cron": [{"command": "make sweep", "schedule": "@daily"}]}
"""


def converted(source: str, files: dict[str, str], **more: str) -> tuple[Manifest, str]:
    made = convert(FakeTree(files), source)
    return read_manifest(FakeTree({**made.files(), **more})), "\n".join(made.told)


def test_sailors_manifest_becomes_ours() -> None:
    manifest, told = converted("sailor.yml", {"sailor.yml": SAILOR}, **{"requirements.txt": "gunicorn\n"})
    commands = {process.type: process.command for process in manifest.processes}
    assert commands == {
        "web": "gunicorn shop.wsgi:application", "worker": "celery -A shop worker", "mail": "python -m mail",
        "cron-1": "python nightly.py",
    }  # fmt: skip
    assert dict(manifest.formation) == {"web": 2, "worker": 3, "mail": 0}
    assert dict(manifest.env) == {"LEVEL": "3", "DEBUG": "false"}
    assert manifest.release_command == "python manage.py migrate && make pages"
    assert manifest.domains == ("shop.example.org", "www.example.org") and manifest.version("python") == "3.10"
    assert manifest.serving.assets == (("/assets", "public/assets"),)
    assert "postdeploy runs nowhere" in told and "tls:enable" in told


def test_kamals_manifest_becomes_ours_and_its_servers_are_told() -> None:
    manifest, told = converted("kamal", {"config/deploy.yml": KAMAL})
    web, job = manifest.processes
    assert (web.command, web.check.path, web.drain, job.command) == ("bin/rails server -p $PORT", "/up", 20, "bin/jobs")
    assert dict(manifest.formation) == {"web": 1, "job": 1} and manifest.serving.timeout == 90
    assert manifest.storage == (("storage", "storage"),) and manifest.domains == ("shop.example.org",)
    for line in ("2 hosts", "RAILS_MASTER_KEY=… DB_PASSWORD=…", "tls:enable", "accessory db", "$PORT, not at 3000"):
        assert line in told, told


def test_app_json_becomes_ours() -> None:
    manifest, told = converted("app.json", {"app.json": APP_JSON}, Procfile="web: x\ncron-1: make sweep\n")
    web = next(process for process in manifest.processes if process.type == "web")
    assert (web.check.path, web.check.content, dict(manifest.env)) == ("/up", "ok", {"LEVEL": "low"})
    assert dict(manifest.formation) == {"web": 2} and manifest.release_command == "make"
    assert "the app needs KEY" in told and "postdeploy runs nowhere" in told


@pytest.mark.parametrize("text", ["[]", "a: [", "apps: []", "\0", "a: &a [*a]", "apps: [{process: {web: [1, {}]}}]"])
def test_what_is_no_such_manifest_is_told_and_breaks_nothing(text: str) -> None:
    tree = FakeTree({"sailor.yml": text})
    try:
        convert(tree, "sailor.yml").files()
    except Rejected as error:
        assert "sailor.yml" in error.message
    with pytest.raises(Rejected, match=r"There is no fly\.toml here"):
        convert(tree, "fly.toml")


def test_what_is_there_already_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sailor.yml").write_text(SAILOR)
    (tmp_path / "Procfile").write_text("web: mine\n")
    assert run(["init", "--from", "sailor.yml", str(tmp_path)], LOCAL_ADMIN) == 0
    assert (tmp_path / "Procfile").read_text() == "web: mine\n"
    assert "release: python manage.py migrate" in (tmp_path / "shipit.yml").read_text()
    assert "Procfile is there already" in "".join(capsys.readouterr())
