from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from receiver.errors import Rejected
from receiver.manifest import schema, shipit_yml, yaml_document
from receiver.model import CheckKind, Limits, Listen
from receiver.ops.all import sections
from receiver.serving import Serving


def refused(text: str) -> Rejected:
    with pytest.raises(Rejected) as caught:
        shipit_yml.parse(text.encode())
    return caught.value


def test_every_key_arrives() -> None:
    said = shipit_yml.parse(b"""
processes:
  web:
    count: 2
    listen: port
    healthcheck: {path: /health, status: 204, content: ok, timeout: 90}
    drain: 10
    memory: 2G
    cpu: 150%
    tasks: 64
release: ./migrate
python: 3.10
domains: [www.example.org, '*.example.org']
build:
  config: [NPM_TOKEN]
  root: services/api
  command: make css
env: {WORKERS: 2, MODE: fast, DEBUG: false, RATE: 0.10}
keep: 9
warm: 600
x-ours: {free: [1, 2]}
""")
    web = said.processes["web"]
    assert (web.count, web.listen, web.drain) == (2, Listen.PORT, 10)
    assert web.limits == Limits(2048, 150, 64)
    assert web.check == {"kind": CheckKind.HTTP, "path": "/health", "status": 204, "content": "ok", "timeout": 90}
    assert (said.release, said.versions["python"], said.root) == ("./migrate", "3.10", "services/api")
    assert said.domains == ("www.example.org", "*.example.org")
    assert (said.build_config, said.build_command) == (("NPM_TOKEN",), "make css")
    assert (said.keep, said.warm, shipit_yml.parse(b"warm: 0").warm, shipit_yml.parse(b"").warm) == (9, 600, 0, None)
    assert dict(said.env) == {"WORKERS": "2", "MODE": "fast", "DEBUG": "false", "RATE": "0.10"}


def test_the_example_of_the_documentation_is_accepted_and_shows_every_key() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/manifest.md").read_text()
    text = page.split("```yaml\n")[1].split("```")[0]
    shipit_yml.parse(text.encode(), sections())
    assert set(schema.load(sections())["properties"]) == set(yaml_document.parse("docs", text.encode()).data)


def test_an_empty_file_says_nothing() -> None:
    assert shipit_yml.parse(b"# nothing yet\n") == shipit_yml.ShipitYml()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nprocess:\n  web: {}\n", "shipit.yml:2: unknown key 'process'. Did you mean 'processes'?"),
        (
            "processes:\n  web:\n    healtcheck: {}\n",
            "shipit.yml:3: unknown key 'healtcheck' in processes.web. Did you mean 'healthcheck'?",
        ),
        ("processes:\n  web:\n    count: many\n", "shipit.yml:3: processes.web.count must be a whole number."),
        ("processes:\n  web:\n    count: 101\n", "shipit.yml:3: processes.web.count must be between 0 and 100."),
        ("processes: {web: {memory: 512}}", "shipit.yml:1: processes.web.memory must be a size such as 512M or 2G."),
        ("processes: {web: {cpu: 2}}", "must be a share of one core such as 50% or 200%."),
        ("processes: {web: {listen: tcp}}", "must be one of socket, port, none."),
        ("processes: {web: {healthcheck: {path: health}}}", "must be a path such as /health."),
        ("processes: {web: {healthcheck: {path: /, tcp: true}}}", "has path and tcp; keep one."),
        ("processes: {web: {healthcheck: {status: 200}}}", "add path."),
        ("processes: {web: {healthcheck: {path: /, settle: 3}}}", "settle is for a process without any"),
        ("processes: {web: {healthcheck: {notify: false}}}", "must be true."),
        ("release: |\n  a\n  b\n", "must be one line, a command."),
        ("release: ''", "must be one line, a command."),
        ("python: 2.7", "must be a Python version such as 3.12."),
        ("python: 4", "must be a Python version such as 3.12."),
        ("python: '>=3.11'", "must be a Python version such as 3.12."),
        ("domains: [UPPER.example.org]", "shipit.yml:1: 'UPPER.example.org' is not a domain."),
        ("build: {root: ../other}", "must be a directory inside the repository"),
        ("build: {root: /etc}", "must be a directory inside the repository"),
        ("build: {config: [1lower]}", "'1lower' is not the name of a config var."),
        ("env: {PATH: /bin}", "The config var PATH is set by shipit or the system."),
        ("env: {A: [1]}", "env.A must be text."),
        ("- a list", "shipit.yml:1: The file must be a mapping of keys."),
        ("keep: 0", "keep must be between 1 and 1000."),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_right(text: str, told: str) -> None:
    assert told in refused(text).message


def test_all_mistakes_are_told_at_once() -> None:
    assert len(refused("keep: x\npython: 2\nrelase: x\n").message.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &x 1\nb: *x\n", "shipit.yml:1: Anchors and aliases"),
        ("env: {A: !!python/object:os.system 1}", "shipit.yml:1: Tags (!)"),
        ("keep: 1\nkeep: 2\n", "shipit.yml:2: The key 'keep' is there twice (line 1 has it too)."),
        ("env:\n  A: 1\n  A: 2\n", "shipit.yml:3: The key 'A' is there twice"),
        ("[" * 5000, "shipit.yml:1: This is nested more than 12 deep."),
        ("a: 1\n---\nb: 2\n", "shipit.yml:2: This is not YAML"),
        ("a: [1\nb: 2\n", "This is not YAML"),
        ("a:\n\t- b\n", "shipit.yml:2: This is not YAML"),
        ("? [a, b]\n: c\n", "shipit.yml:1: A key must be text."),
        ("a: '" + "x" * 70_000 + "'", "larger than 64 KiB"),
        ("a: \x07", "This is not YAML"),
    ],
)
def test_yaml_that_is_more_than_plain_data_is_refused(text: str, told: str) -> None:
    assert told in refused(text).message


def test_a_billion_laughs_costs_nothing() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    assert "Anchors and aliases" in refused(bomb).message


def test_a_file_that_is_not_utf8_is_refused_with_its_line() -> None:
    with pytest.raises(Rejected, match=r"shipit\.yml:2: This is not UTF-8"):
        shipit_yml.parse(b"keep: 1\nx-a: \xff\n")


def test_yamls_surprises_are_text() -> None:
    document = yaml_document.parse(
        "f", b"a: no\nb: 12:30\nc: 3.10\nd: 0777\ne: 2026-01-01\nf: true\ng: 7\nh: '7'\ni: 1e3"
    )
    assert document.data == {
        "a": "no", "b": "12:30", "c": "3.10", "d": "0777", "e": "2026-01-01", "f": True, "g": 7, "h": "7", "i": "1e3",
    }  # fmt: skip


def test_the_published_schema_is_a_valid_schema_and_describes_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.load())
    properties = json.loads(schema.FILE.read_text())["properties"]
    assert all("description" in said or said["type"] == "object" for said in properties.values())


def test_a_file_of_another_name_is_not_silently_ignored() -> None:
    from trees import FakeTree

    with pytest.raises(Rejected, match=r"The file is called shipit\.yml"):
        shipit_yml.read(FakeTree({"shipit.yaml": "keep: 1"}))


def test_how_nginx_serves_the_app_is_typed() -> None:
    said = shipit_yml.parse(
        b"proxy:\n  timeout: 300\n  body: 2G\n  header: 32K\n  buffering: false\n  upload_buffering: false\n"
        b"  keep: false\n  connections: 200\n  headers:\n    X-Frame-Options: DENY\n    X-Number: 007\n"
    )
    assert said.serving == Serving(
        timeout=300, body=2048, header=32, buffering=False, upload_buffering=False, keep=False, connections=200,
        headers=(("X-Frame-Options", "DENY"), ("X-Number", "007")),
    )  # fmt: skip
    assert shipit_yml.parse(b"keep: 3\n").serving == Serving()


@pytest.mark.parametrize(
    "line",
    [
        "timeout: 0", "timeout: 1m", "body: 100", "body: -1M", "header: 2K", "header: 1M", "buffering: off-ish", "speed: 3",
        "headers: {'X-A;': b}", "headers: {Connection: close}", "headers: {X-A: '$host'}", "headers: {X-A: 'a\"; b'}",
        "headers: {X-A: 'back\\slash'}", 'headers: {X-A: "two\\nlines"}', "headers: {X-A: é}",
    ],
)  # fmt: skip
def test_what_nginx_must_not_be_told_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(Rejected, match=r"shipit\.yml"):
        shipit_yml.parse(f"proxy:\n  {line}\n".encode())
