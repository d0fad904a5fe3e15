"""An app that runs: its config vars, its processes, its logs, and commands beside it; all over ssh."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

from host.apps import asked, environment_of, files, live, newest, pushed, say

NASTY = {
    "SPACES": "  two  words  ",
    "QUOTES": 'it\'s "quoted" `so`',
    "DOLLAR": "$HOME ${PATH} $(id) $$",
    "BACKSLASH": "a\\b\\n\\\\",
    "PERCENT": "%n %i %% %s",
    "HASH": "before # after; and // more",
    "EQUALS": "a=b==c",
    "EMPTY": "",
    "STAR": "* ? [a-z] {1,2} ~ !",
    "UNICODE": "žluťoučký 🦄 日本",
    "SECTION": "[Service] ExecStartPre=+/bin/false",
    "TEMPLATE": "{{ 7 * 7 }} {% raw %}",
    "DASH": "--option",
    "URL": "postgres://u:p%40ss@db/x?a=1&b=2|c<d>e;f(g)",
    "LONG": "x" * 8000,
}
LINES = (
    "-----BEGIN KEY-----\n  indented\n\nUser=root\nExecStartPre=+/bin/sh -c id\n\ttab 'q' \"q\" \\\n-----END KEY-----\n"
)


# -- config vars


def test_config_vars_reach_the_process_byte_for_byte(laptop: Client) -> None:
    pushed(laptop, "nasty", "one")
    assert say(laptop, "config:set", "nasty", *(f"{name}={value}" for name, value in NASTY.items())).code == 0
    assert say(laptop, "config:set", "nasty", "LINES", "-", input=LINES).code == 0
    assert say(laptop, "config:set", "nasty", "ONE", "-", input="one line\n").code == 0
    wanted = {**NASTY, "LINES": LINES, "ONE": "one line"}
    found = environment_of(laptop, "nasty")
    assert {name: found.get(name) for name in wanted} == wanted
    assert asked(laptop, "config:show", "nasty", "--reveal") == wanted
    for name, value in wanted.items():
        assert say(laptop, "config:get", "nasty", name).out == value + "\n"
    ran = say(laptop, "run", "nasty", "python", "-c", "import os, json; print(json.dumps(dict(os.environ)))")
    assert ran.code == 0, str(ran)
    assert {name: json.loads(ran.out).get(name) for name in wanted} == wanted


def test_config_vars_are_shown_masked_and_unset_again(laptop: Client) -> None:
    pushed(laptop, "masked", "one")
    result = say(laptop, "config:set", "masked", "TOKEN=tok-visible-1", "COLOUR=red")
    assert result.code == 0
    assert "tok-visible-1" not in result.text
    shown = say(laptop, "config:show", "masked")
    assert "TOKEN" in shown.out
    assert "tok-visible-1" not in shown.text
    assert "tok-visible-1" in say(laptop, "config:show", "masked", "--reveal").out
    assert say(laptop, "config:unset", "masked", "TOKEN").code == 0
    assert "TOKEN" not in environment_of(laptop, "masked")
    assert environment_of(laptop, "masked")["COLOUR"] == "red"
    number = newest(laptop, "masked")["release"]
    same = say(laptop, "config:set", "masked", "COLOUR=red")
    assert (same.code, newest(laptop, "masked")["release"]) == (0, number), "what changes nothing makes no release"


def test_a_config_change_that_breaks_the_app_does_not_go_live(laptop: Client) -> None:
    crash = "import os\nif os.environ.get('MODE') == 'bad':\n    raise SystemExit('mode bad is not known; ' + os.environ['TOKEN'])\n"
    repo = laptop.repo("picky", files("one"))
    repo.write({"main.py": crash + files("one")["main.py"]})
    repo.commit()
    assert repo.push().code == 0
    with laptop.load("picky", threads=2, pause=0.02) as load:
        result = say(laptop, "config:set", "picky", "MODE=bad", "TOKEN=tok-in-its-last-words")
    assert load.stop().failed == 0
    assert result.code == 1
    assert "mode bad is not known; [hidden]" in result.text
    assert "tok-in-its-last-words" not in result.text
    assert "v1 is still serving" in result.text
    assert asked(laptop, "config:show", "picky") == {}
    assert live(laptop, "picky") == "v1"


def test_config_vars_can_be_set_before_the_first_push(laptop: Client) -> None:
    assert say(laptop, "apps:create", "early").code == 0
    assert say(laptop, "config:set", "early", "COLOUR=green").code == 0
    pushed(laptop, "early", "one")
    assert environment_of(laptop, "early")["COLOUR"] == "green"


# -- processes


def test_scaling_changes_how_many_run_and_loses_no_request(laptop: Client) -> None:
    repo = pushed(laptop, "scaled", "one")
    with laptop.load("scaled", threads=4) as load:
        up = say(laptop, "ps:scale", "scaled", "web=3")
        several = {laptop.get("scaled", "/who").body.split()[0] for _ in range(30)}
        down = say(laptop, "ps:scale", "scaled", "web=1")
    assert (up.code, down.code) == (0, 0), f"{up}{down}"
    report = load.stop()
    assert report.failed == 0, str(report)
    assert several == {"web.1", "web.2", "web.3"}
    assert asked(laptop, "ps:scale", "scaled") == [{"process": "web", "count": 1}]
    wait_for("two processes to go", lambda: len(asked(laptop, "ps", "scaled")) == 1)
    assert say(laptop, "ps:scale", "scaled", "web=2").code == 0
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    assert asked(laptop, "ps:scale", "scaled") == [{"process": "web", "count": 2}], "a push keeps what was scaled"


def test_a_restart_loses_no_request(laptop: Client, blog: Repo) -> None:
    before = laptop.get("blog", "/who").body
    with laptop.load("blog", threads=4) as load:
        result = say(laptop, "ps:restart", "blog")
    assert result.code == 0, str(result)
    report = load.stop()
    assert report.failed == 0, str(report)
    assert laptop.get("blog", "/who").body != before


def alone(laptop: Client, app: str) -> list[dict[str, Any]]:
    """What `ps` shows once no replaced release is among it."""
    return wait_for(
        "the live release to be alone",
        lambda: [rows for rows in [asked(laptop, "ps", app)] if len({row["release"] for row in rows}) == 1],
    )[0]


def test_one_process_type_restarts_in_place(laptop: Client, blog: Repo) -> None:
    rows = {row["process"]: row["pid"] for row in alone(laptop, "blog")}
    number = newest(laptop, "blog")["release"]
    assert say(laptop, "ps:restart", "blog", "worker").code == 0
    after = {row["process"]: row["pid"] for row in asked(laptop, "ps", "blog")}
    assert after["web.1"] == rows["web.1"]
    assert after["worker.1"] != rows["worker.1"]
    assert newest(laptop, "blog")["release"] == number


def test_a_killed_process_comes_back_by_itself(laptop: Client, blog: Repo, shared_host: Host) -> None:
    row = next(row for row in alone(laptop, "blog") if row["process"] == "web.1")
    shared_host.run("kill", "-9", str(row["pid"]))
    wait_for("the process to be back", lambda: laptop.get("blog").status == 200)
    assert next(r for r in asked(laptop, "ps", "blog") if r["process"] == "web.1")["restarts"] == 1


def test_a_stopped_app_answers_503_until_it_is_started_or_pushed(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "paused", "one")
    assert say(laptop, "ps:stop", "paused").code == 0
    answer = laptop.get("paused")
    assert answer.status == 503
    assert "<html" in answer.body.lower()
    assert asked(laptop, "ps", "paused") == []
    assert asked(laptop, "status", "paused")["state"] == "stopped"
    assert say(laptop, "config:set", "paused", "COLOUR=red").code == 0
    assert laptop.get("paused").status == 503, "a stopped app stays stopped through a config change"
    assert "shipit-paused-web" not in shared_host.sh("ls /etc/systemd/system").out
    assert say(laptop, "ps:start", "paused").code == 0
    assert laptop.get("paused").body == "one"
    assert environment_of(laptop, "paused")["COLOUR"] == "red"
    assert say(laptop, "ps:stop", "paused").code == 0
    repo.commit({"mark": "two\n"})
    assert repo.push().code == 0
    assert laptop.get("paused").body == "two"


# -- logs and one-off commands


def test_logs_are_of_the_live_and_of_an_earlier_release_and_follow(laptop: Client) -> None:
    repo = pushed(laptop, "talks", "first")
    assert laptop.get("talks", "/say").status == 200
    repo.commit({"mark": "second\n"})
    assert repo.push().code == 0
    wait_for("the new release's line", lambda: "second listens" in say(laptop, "logs", "talks").out)
    assert "first was asked for /say" in say(laptop, "logs", "talks", "--release", "v1").out
    of_two = say(laptop, "logs", "talks", "--release", "v2").out
    assert "second listens" in of_two
    assert "first" not in of_two
    assert say(laptop, "logs", "talks", "-q", "--release", "v2", "-n", "1").out == "second listens\n"
    assert say(laptop, "logs", "talks", "-p", "worker").out == ""
    tail = laptop.start_ssh("logs talks -t")
    try:
        wait_for("the tail to begin", lambda: "second listens" in tail.so_far())
        laptop.get("talks", "/say/more")
        wait_for("the new line", lambda: "asked for /say/more" in tail.so_far())
    finally:
        tail.kill()


def test_run_hands_on_output_input_and_the_true_exit_code(laptop: Client, blog: Repo) -> None:
    done = say(laptop, "run", "blog", "sh", "-c", "cat; echo told >&2; echo $SHIPIT_APP", input="given\n")
    assert (done.code, done.out, done.err) == (0, "given\nblog\n", "told\n")
    assert say(laptop, "run", "blog", "sh", "-c", "exit 3").code == 3
    assert say(laptop, "run", "blog", "sh", "-c", "kill -9 $$").code == 137
    assert say(laptop, "run", "blog", "id -un; pwd").out.splitlines()[0] == "app-blog"
    assert say(laptop, "run", "blog", "printf", "%s|", "a b", "c'd", "$HOME").out == "a b|c'd|$HOME|"


def test_run_with_a_terminal_is_one(laptop: Client, blog: Repo) -> None:
    result = say(laptop, "run", "blog", "test -t 0 && test -t 1 && echo terminal; exit 5", tty=True)
    assert "terminal" in result.out, str(result)
    assert result.code == 5


def test_run_ends_with_its_connection(laptop: Client, blog: Repo, shared_host: Host) -> None:
    running = laptop.start_ssh("run blog sleep 4242")
    found: Callable[[], bool] = lambda: shared_host.run("pgrep", "-f", "sleep 4242", check=False).ok  # noqa: E731
    wait_for("the command", found)
    running.kill()
    wait_for("it to be gone", lambda: not found())
