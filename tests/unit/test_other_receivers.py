"""Projects that were made for another receiver: Heroku's, Piku's and Dokku's files are read as they are."""

from __future__ import annotations

import json

import pytest
from trees import read

from receiver.errors import Rejected


def test_app_json_has_defaults_wants_and_secrets() -> None:
    env = {
        "A": "1",
        "B": {"value": "2"},
        "C": {"description": "a key"},
        "D": {"required": False},
        "S": {"generator": "secret"},
    }
    found = read({"app.json": json.dumps({"env": env}), "ENV": "# piku's\nA=0\nNGINX_SERVER_NAME=x\nE='five'\n"})
    assert dict(found.env) == {"A": "1", "B": "2", "E": "five"}
    assert [key for key, _ in found.required] == ["C"] and found.secrets == ("S",)
    assert not read({"app.json": json.dumps({"env": {"C": {}}}), "shipit.yml": "env: {C: said}\n"}).required


@pytest.mark.parametrize("env", [{"1A": "x"}, {"A": {"generator": "uuid"}}, {"A": {"value": []}}, {"PATH": "x"}])
def test_what_app_json_cannot_have_is_refused_with_its_line(env: object) -> None:
    with pytest.raises(Rejected, match=r"app\.json:1: "):
        read({"app.json": json.dumps({"env": env})})


def test_pikus_preflight_runs_in_the_build_and_its_php_is_served() -> None:
    found = read({"Procfile": "php: public\npreflight: make\n", "shipit.yml": "build: {command: ./more}\n"})
    assert found.processes[0].command == "serve-php public" and found.build_command == "(\nmake\n) &&\n./more"


def test_herokus_php_servers_are_served_too() -> None:
    found = read({"Procfile": "web: vendor/bin/heroku-php-nginx -C nginx.conf public/\n", "composer.json": "{}"})
    assert found.processes[0].command == "serve-php public" and found.processes[0].listen.value == "socket"


def test_an_aptfile_is_read_and_what_is_no_package_of_debian_in_it_is_told() -> None:
    text = "# media\nffmpeg  libpq5:amd64\n:repo:deb http://x.test/ stable main\nhttps://x.test/a.deb\n"
    manifest = read({"Aptfile": text, "shipit.yml": "apt: [ffmpeg, g++]\n"})
    assert manifest.apt == ("ffmpeg", "g++", "libpq5")
    assert [line.split(": ")[0] for line in manifest.notices] == ["Aptfile:3", "Aptfile:4"]
    for name in ("ffmpeg-", "-y", "x;y", "A"):
        with pytest.raises(Rejected, match="Aptfile:1"):
            read({"Aptfile": f"{name}\n"})


def test_dokkus_checks_is_the_healthcheck_of_web() -> None:
    text = "WAIT=2\nTIMEOUT=10 \nATTEMPTS=3\n\n# a page\nhttp://x.test/health  all well\n/other\nnonsense\n"
    manifest = read({"CHECKS": text})
    check = manifest.processes[0].check
    assert (check.path, check.content, check.timeout) == ("/health", "all well", 38)
    assert [line.split(" ")[0] for line in manifest.notices] == ["CHECKS:8:", "CHECKS:"]
    mine = read({"CHECKS": text, "shipit.yml": "processes: {web: {healthcheck: {path: /up, timeout: 5}}}\n"})
    assert (mine.processes[0].check.path, mine.processes[0].check.timeout) == ("/up", 5)


def test_an_example_of_an_environment_names_config_vars() -> None:
    text = "# what it needs\nSECRET_KEY=change-me\nexport MAIL_SERVER=\n#OPTIONAL=1\nPORT=8000\nlower=1\n"
    assert read({".env.example": text}).example == (".env.example", ("SECRET_KEY", "MAIL_SERVER"))
    assert read({}).example == ("", ())
