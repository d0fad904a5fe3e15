from __future__ import annotations

import pytest

from receiver.cli.main import ALIASES, COMMANDS
from receiver.cli.suggest import ELSEWHERE, LOOKS, instead

# Dokku's and Kamal's words that shipit does not have.
OTHERS = [
    "apps:locked", "apps:report", "builds:list", "builds:info", "builds:report", "certs:show", "checks:report",
    "config:export", "cron:list", "domains:report", "git:report", "logs:failed", "network:report", "nginx:show-config",
    "ports:list", "ps:inspect", "ps:report", "proxy:report", "report", "resource:report", "run:list", "run:logs",
    "scheduler:report", "ssh-keys:report", "storage:list", "storage:report", "audit", "details", "events", "ls", "stat",
]  # fmt: skip


def offered(word: str) -> str:
    hint = instead(word, list(COMMANDS), ALIASES)
    return hint.partition("shipit ")[2].split(" ")[0] if "shipit" in hint and "--help" not in hint else ""


@pytest.mark.parametrize("word", [word for word in OTHERS if word not in COMMANDS and word not in ALIASES])
def test_who_wants_to_look_is_not_led_to_what_changes_something(word: str) -> None:
    found = offered(word)
    assert not found or ALIASES.get(found, found) in LOOKS


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("rolback", "rollback"),
        ("confg:set", "config:set"),
        ("ps:scael", "ps:scale"),
        ("stauts", "status"),
        ("lgos", "logs"),
    ],
)
def test_a_slip_of_one_letter_is_put_right(typed: str, meant: str) -> None:
    assert offered(typed) == meant


def test_what_another_receiver_calls_it_is_answered_with_a_command_that_exists() -> None:
    assert all(ALIASES.get(name, name) in COMMANDS for name in ELSEWHERE.values())
    assert not set(ELSEWHERE) & {*COMMANDS, *ALIASES} and set(COMMANDS) >= LOOKS


def test_a_word_of_a_known_noun_gets_the_commands_of_that_noun() -> None:
    assert instead("releases:frobnicate", list(COMMANDS), ALIASES).startswith(
        "Commands of releases: releases, releases:info"
    )
