"""The server's settings: what is wrong is named, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import Rejected
from receiver.manifest import schema
from receiver.settings import LONGEST_WARM, Settings, load, parse


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([], "is not a mapping"),
        ({"kepp": 3}, "unknown key 'kepp'"),
        ({"keep": "3"}, "keep must be a int"),
        ({"keep": True}, "keep must be a int"),
        ({"keep": -1}, "keep must be a int"),
        ({"warm": LONGEST_WARM + 1}, "warm must be 86400 at most"),
        ({"build_environment": {"A": 1}}, "build_environment must map names to strings"),
    ],
)
def test_what_is_wrong_is_named(said: Any, told: str) -> None:
    with pytest.raises(Rejected, match=told):
        parse(said, "shipit.yml")


def test_what_is_not_said_has_its_default() -> None:
    assert parse({"warm": LONGEST_WARM}, "shipit.yml") == Settings(warm=LONGEST_WARM)


def test_no_manifest_may_ask_for_what_a_record_cannot_hold() -> None:
    assert json.loads(schema.FILE.read_text())["properties"]["warm"]["maximum"] == LONGEST_WARM


def test_on_is_a_word_as_the_manual_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "shipit.yml"
    path.write_text("notify:\n  on: failed crashed\n  command: /usr/local/bin/tell\n")
    assert load(path).notify == {"on": "failed crashed", "command": "/usr/local/bin/tell"}


def test_the_proxy_protocol_needs_somebody_who_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "shipit.yml"
    path.write_text("proxy_protocol: true\n")
    with pytest.raises(Rejected, match="no proxy is trusted"):
        load(path)
    path.write_text("proxy_protocol: true\ntrusted_proxies: [10.0.0.2, cloudflare]\n")
    assert load(path).proxy_protocol
