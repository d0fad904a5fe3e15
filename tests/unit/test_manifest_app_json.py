from __future__ import annotations

import json
from typing import Any

import pytest
from trees import FakeTree

from receiver.errors import Rejected
from receiver.manifest import app_json, json_document
from receiver.manifest.problems import Problems
from receiver.model import Check, CheckKind


def read(data: Any) -> app_json.AppJson:
    problems = Problems()
    text = data if isinstance(data, str) else json.dumps(data, indent=2)
    found = app_json.read(FakeTree({"app.json": text}), problems)
    problems.check()
    return found


def test_quantities_are_the_formation() -> None:
    found = read({"formation": {"web": {"quantity": 2}, "worker": {"quantity": 0, "size": "basic"}}})
    assert {kind: count for kind, (count, _) in found.counts.items()} == {"web": 2, "worker": 0}


def test_comments_and_trailing_commas_are_read_as_dokku_reads_them_and_lines_stay_true() -> None:
    text = """{
      // what runs
      "formation": {
        "web": {"quantity": 2,}, /* two
                                    of them */
        "worker": {"quantity": 1}, // "b": 1
      },
      "name": "a // b, /* c */, }",
    }"""
    found = read(text)
    assert {kind: count for kind, (count, _) in found.counts.items()} == {"web": 2, "worker": 1}
    assert found.counts["worker"][1] == "app.json:6"
    with pytest.raises(Rejected):
        read('{"formation": /* ' + "/*" * 100_000)


@pytest.mark.parametrize(
    ("said", "check"),
    [
        ({"path": "/up"}, Check(CheckKind.HTTP, path="/up", timeout=30)),
        (
            {
                "type": "startup",
                "path": "/up",
                "content": "ok",
                "attempts": 2,
                "timeout": 10,
                "wait": 1,
                "initialDelay": 5,
            },
            Check(CheckKind.HTTP, path="/up", content="ok", timeout=27),
        ),
        ({"command": ["./up", "a b"]}, Check(CheckKind.COMMAND, command="./up 'a b'", timeout=30)),
        ({"listening": True}, Check(CheckKind.TCP, timeout=30)),
        ({"uptime": 20}, Check(CheckKind.UPTIME, settle=20, timeout=30)),
        ({"path": "/", "attempts": 1000, "wait": 60}, Check(CheckKind.HTTP, timeout=3600)),
    ],
)
def test_a_startup_check_is_kept_with_all_its_patience(said: dict[str, Any], check: Check) -> None:
    assert read({"healthchecks": {"web": [said]}}).checks["web"][0] == check


def test_the_predeploy_script_is_found() -> None:
    assert read({"scripts": {"dokku": {"predeploy": "./migrate"}}}).predeploy == "./migrate"


def test_whatever_is_not_honoured_is_told_with_its_line() -> None:
    found = read(
        {
            "name": "x",
            "buildpacks": [],
            "cron": [],
            "formation": {"web": {"autoscaling": {}}},
            "healthchecks": {"web": [{"type": "liveness", "path": "/"}, {"path": "/a", "scheme": "https"}]},
            "scripts": {"postdeploy": "x", "dokku": {"postdeploy": "y"}},
        }
    )
    assert [notice.split(": ")[1].split()[0] for notice in found.notices] == [
        "buildpacks", "formation.web.autoscaling", "a", "scheme", "scripts.postdeploy", "scripts.dokku.postdeploy",
    ]  # fmt: skip
    assert found.notices[0].startswith("app.json:3: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{\n  "a": ;\n}', "app.json:2: This is not JSON"),
        ('{"a": 1, "a": 2}', "The key 'a' is there twice"),
        ("[]", "app.json:1: The file must hold an object"),
        (
            '{\n"formation": {\n"web": {\n"quantity": "2"}}}',
            "app.json:4: formation.web.quantity must be a whole number",
        ),
        ('{"formation": 1}', "formation must be an object"),
        ('{"formation": {"web": 1}}', "formation.web must be an object"),
        ('{"healthchecks": {"web": {}}}', "must be a list of objects"),
        ('{"healthchecks": {"web": [\n{"path": "x"}]}}', "app.json:2: path of a healthcheck must be a path"),
        ('{"healthchecks": {"web": [{"command": "x"}]}}', "must be a list of words"),
        ('{"healthchecks": {"web": [{"wait": -1}]}}', "between 0 and 3600"),
        ('{"scripts": {"dokku": {"predeploy": "a\\nb"}}}', "must be one line"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(Rejected) as caught:
        read(text)
    assert told in caught.value.message


def test_lines_are_right_through_strings_that_look_like_json() -> None:
    text = '{\n "a": "}\\"{",\n "b": [\n  {"c": 1},\n  {\n   "c": [2, 3]}\n ]\n}'
    document = json_document.parse("f", text.encode())
    assert document.data["b"][1]["c"] == [2, 3]
    assert [document.at(path) for path in [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "c")]] == [
        "f:2", "f:3", "f:4", "f:5", "f:6",
    ]  # fmt: skip
